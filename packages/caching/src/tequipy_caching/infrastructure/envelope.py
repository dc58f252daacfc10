"""The envelope: what surrounds a value in Redis and tells whether it may be believed.

What Redis holds under a name is a state, which no other equals, and for a value: the generation of its cache, its tags
with theirs (both put in by the scripts) and an envelope with the value's bytes.
"""

import secrets
from hashlib import blake2b
from struct import Struct
from typing import Final
from zlib import crc32

VALUE: Final = b"\x0f"
EXPIRED: Final = b"\x33"
TOMBSTONE: Final = b"\x55"
MARK: Final = b"\x69"
"""Left by a lookup that found nothing and may store: a store demands that it is still there."""
# Four bits from each other: no small damage makes one another.
_KINDS: Final = frozenset({VALUE, EXPIRED, TOMBSTONE, MARK})

_DIGEST: Final = 8
_BLANK: Final = blake2b(digest_size=_DIGEST)
_TOKEN: Final = 23
STATE_BYTES: Final = 1 + _TOKEN
GENERATION_BYTES: Final = 16
"""Of a generation and of a tag's id: hexadecimal digits."""
_TAG_BYTES: Final = 2 * GENERATION_BYTES
_VERSION: Final = b"\x02"
"""Of the layout; another one is no value."""
# version, digest of the schema, digest of the key, life and time kept beyond it in milliseconds, checksum of the body
_FIELDS: Final = Struct(f">c{_DIGEST}s{_DIGEST}sQQI")
_CHECKSUM: Final = Struct(">I")
"""A CRC-32: against damage, not against an attacker who can write to Redis."""
_HEADER: Final = Struct(_FIELDS.format + _CHECKSUM.format.removeprefix(">"))
HEADER_BYTES: Final = _HEADER.size
_COUNT_AT: Final = STATE_BYTES + GENERATION_BYTES
"""Where the byte is that counts the tags."""


Opened = tuple[bytes, tuple[str, ...], int, int, bytes]
"""What Redis holds of a value: its kind, the ids of its tags, how long it was to live and how much longer Redis keeps
it (milliseconds), and its bytes. A plain tuple, for this is read a hundred times in a batch.
"""
NOTHING: Final[Opened] = (TOMBSTONE, (), 0, 0, b"")
"""What there is of a state alone: a tombstone, or a value that has become void."""
MARKED: Final[Opened] = (MARK, (), 0, 0, b"")


class OtherShape(ValueError):
    """A sound value of this key, of the shape that another release gives it."""


def digest(data: bytes) -> bytes:
    """Return a short BLAKE2b digest, by which keys and shapes are told apart."""
    hasher = _BLANK.copy()  # to make one anew takes longer than to hash a key
    hasher.update(data)
    return hasher.digest()


def new_state(kind: bytes) -> bytes:
    """Return a state that no other equals."""
    return kind + secrets.token_bytes(_TOKEN)


def encode_envelope(fingerprint: bytes, key: str, body: bytes, *, ttl: int, tail: int) -> bytes:
    """Return an envelope for one key and one shape of value."""
    header = _FIELDS.pack(_VERSION, fingerprint, digest(key.encode()), ttl, tail, crc32(body))
    return b"".join((header, _CHECKSUM.pack(crc32(header)), body))


def decode_envelope(fingerprint: bytes, key: str, data: bytes) -> Opened:
    """Take apart what Redis holds; raises `ValueError` for what is damaged, foreign or of another key or shape."""
    kind = data[:1]
    if kind not in _KINDS or len(data) < STATE_BYTES:
        raise ValueError("not a state, or a damaged one")
    if len(data) == STATE_BYTES:
        return MARKED if kind == MARK else NOTHING
    count = data[_COUNT_AT] if len(data) > _COUNT_AT else 0
    start = _COUNT_AT + 1 + count * _TAG_BYTES
    if kind in {TOMBSTONE, MARK} or len(data) < start + HEADER_BYTES:
        raise ValueError("a state with a damaged envelope")
    version, shape, of_key, ttl, tail, body_check, header_check = _HEADER.unpack_from(data, start)
    if crc32(data[start : start + _FIELDS.size]) != header_check:
        raise ValueError("a damaged header")
    if version != _VERSION or of_key != digest(key.encode()):
        raise ValueError("an envelope of another version or key")
    if shape != fingerprint:
        raise OtherShape("an envelope of another shape")
    body = data[start + HEADER_BYTES :]
    if crc32(body) != body_check:
        raise ValueError("a damaged body")
    return kind, _tags(data, count) if count else (), ttl, tail, body


def _tags(data: bytes, count: int) -> tuple[str, ...]:
    starts = range(_COUNT_AT + 1, _COUNT_AT + 1 + count * _TAG_BYTES, _TAG_BYTES)
    return tuple([data[start : start + GENERATION_BYTES].decode("latin-1") for start in starts])

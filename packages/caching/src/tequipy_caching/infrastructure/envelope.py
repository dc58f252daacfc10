"""The envelope: what surrounds a value in Redis and tells whether it may be believed.

What Redis holds under a name is a state, which no other equals, and for a value: the generation of its cache, its tags
with theirs (both put in by the scripts) and an envelope with the value's bytes.
"""

import secrets
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

VALUE: Final = b"\x0f"
EXPIRED: Final = b"\x33"
TOMBSTONE: Final = b"\x55"
_KINDS: Final = frozenset({VALUE, EXPIRED, TOMBSTONE})  # four bits from each other: no small damage makes one another

_DIGEST: Final = 8
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
HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM.size


class Opened(NamedTuple):
    """What was in an envelope; times in milliseconds."""

    body: bytes
    life: int
    """How long the value was to live."""
    tail: int
    """How long Redis keeps it beyond its life."""


class Stored(NamedTuple):
    """What Redis holds under a name, taken apart."""

    kind: bytes
    tags: tuple[str, ...]
    envelope: bytes
    """Empty for a tombstone and for a value that has become void."""


def digest(data: bytes) -> bytes:
    """Return a short BLAKE2b digest, by which keys and shapes are told apart."""
    return blake2b(data, digest_size=_DIGEST).digest()


def new_state(kind: bytes) -> bytes:
    """Return a state that no other equals."""
    return kind + secrets.token_bytes(_TOKEN)


def take_apart(data: bytes) -> Stored:
    """Return the parts of what Redis holds; raises `ValueError` for what is damaged or foreign."""
    kind = data[:1]
    if kind not in _KINDS or len(data) < STATE_BYTES:
        raise ValueError("not a state, or a damaged one")
    if len(data) == STATE_BYTES:
        return Stored(kind, (), b"")
    start = STATE_BYTES + GENERATION_BYTES + 1
    if kind == TOMBSTONE or len(data) < start:
        raise ValueError("a state with damaged tags")
    count = data[start - 1]
    end = start + count * _TAG_BYTES
    tags = [data[at : at + GENERATION_BYTES].decode("latin-1") for at in range(start, end, _TAG_BYTES)] if count else ()
    return Stored(kind, tuple(tags), data[end:])


def seal(fingerprint: bytes, key: str, body: bytes, *, life: int, tail: int) -> bytes:
    """Return an envelope for one key and one shape of value."""
    header = _FIELDS.pack(_VERSION, fingerprint, digest(key.encode()), life, tail, crc32(body))
    return b"".join((header, _CHECKSUM.pack(crc32(header)), body))


def unseal(fingerprint: bytes, key: str, sealed: bytes) -> Opened:
    """Return what is in an envelope; raises `ValueError` for what is damaged, foreign or of another key or shape."""
    header = sealed[: _FIELDS.size]
    if len(sealed) < HEADER_BYTES or _CHECKSUM.pack(crc32(header)) != sealed[_FIELDS.size : HEADER_BYTES]:
        raise ValueError("not an envelope, or a damaged one")
    version, shape, of_key, life, tail, check = _FIELDS.unpack(header)
    if version != _VERSION or shape != fingerprint or of_key != digest(key.encode()):
        raise ValueError("an envelope of another version, shape or key")
    body = sealed[HEADER_BYTES:]
    if crc32(body) != check:
        raise ValueError("a damaged body")
    return Opened(body, life, tail)

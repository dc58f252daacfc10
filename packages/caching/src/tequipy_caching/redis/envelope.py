"""The binary format of an entry in Redis, with the checks whether its value may be used.

    entry     state, then for a value: generation of the cache (16 bytes), tags, envelope
    state     kind (1 byte), random token (23 bytes): unique, so that a store can compare it
    tags      number of tags (1 byte), then for each tag: id (16 bytes), generation (16 bytes)
    envelope  header, encoded value

The scripts in `redis/lua` write the generations and the tags, and compare them. They count bytes from 1: the state is 1
to 24, the generation 25 to 40, the number of tags 41. This module writes and reads the envelope.
"""

import secrets
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final
from zlib import crc32

# The kinds of a state. Any two differ in four bits, so that a damaged byte is not mistaken for another kind.
VALUE: Final = b"\x0f"
EXPIRED: Final = b"\x33"
"""A value after `Cache.expire`: it may only be served stale."""
TOMBSTONE: Final = b"\x55"
MARK: Final = b"\x69"
"""Written by a lookup that found nothing and may store; the store requires that it is still there."""
_KINDS: Final = frozenset({VALUE, EXPIRED, TOMBSTONE, MARK})

_DIGEST_BYTES: Final = 8
_EMPTY_HASHER: Final = blake2b(digest_size=_DIGEST_BYTES)
_TOKEN_BYTES: Final = 23
STATE_BYTES: Final = 1 + _TOKEN_BYTES
_GENERATION_BYTES: Final = 16
"""The length of a generation and of a tag's id, in hexadecimal digits."""
_TAG_BYTES: Final = 2 * _GENERATION_BYTES
_VERSION: Final = b"\x02"
"""The version of the format; an entry of another version is unreadable."""
# version, digest of the schema, digest of the key, ttl, time kept after the ttl (milliseconds), checksum of the body
_FIELDS: Final = Struct(f">c{_DIGEST_BYTES}s{_DIGEST_BYTES}sQQI")
_CHECKSUM: Final = Struct(">I")
"""A CRC-32. It detects damage, but not an attacker who can write to Redis."""
_HEADER: Final = Struct(_FIELDS.format + _CHECKSUM.format.removeprefix(">"))
HEADER_BYTES: Final = _HEADER.size
_COUNT_AT: Final = STATE_BYTES + _GENERATION_BYTES
"""The position of the byte that counts the tags."""

EntryParts = tuple[bytes, tuple[str, ...], int, int, bytes]
"""The parts of an entry: its kind, the ids of its tags, its ttl and the time that Redis keeps it after that
(milliseconds), and the encoded value. A plain tuple is fastest: a batch reads a hundred.
"""
NO_VALUE: Final[EntryParts] = (TOMBSTONE, (), 0, 0, b"")
"""The parts of a state without a value: a tombstone, or a value of an older generation."""
MARK_ALONE: Final[EntryParts] = (MARK, (), 0, 0, b"")


class OtherSchema(ValueError):
    """An undamaged value of this key with the schema of another release."""


def digest(data: bytes) -> bytes:
    """Return a short BLAKE2b digest that identifies a key or a schema."""
    hasher = _EMPTY_HASHER.copy()  # copying is faster than creating a hasher, which takes longer than hashing a key
    hasher.update(data)
    return hasher.digest()


def new_state(kind: bytes) -> bytes:
    """Return a new unique state of a kind."""
    return kind + secrets.token_bytes(_TOKEN_BYTES)


def encode_envelope(fingerprint: bytes, key: str, body: bytes, *, ttl: int, tail: int) -> bytes:
    """Return the envelope of an encoded value, for one key and one schema.

    Redis keeps the entry for the value's `ttl` and then for `tail`, both in milliseconds.
    """
    header = _FIELDS.pack(_VERSION, fingerprint, digest(key.encode()), ttl, tail, crc32(body))
    return b"".join((header, _CHECKSUM.pack(crc32(header)), body))


def decode_entry(fingerprint: bytes, key: str, data: bytes) -> EntryParts:
    """Return the parts of an entry; raise `ValueError` if it is damaged or of another format, key or schema."""
    kind = data[:1]
    if kind not in _KINDS or len(data) < STATE_BYTES:
        raise ValueError("not a state, or a damaged one")
    if len(data) == STATE_BYTES:
        return MARK_ALONE if kind == MARK else NO_VALUE
    count = data[_COUNT_AT] if len(data) > _COUNT_AT else 0
    start = _COUNT_AT + 1 + count * _TAG_BYTES
    if kind in {TOMBSTONE, MARK} or len(data) < start + HEADER_BYTES:
        raise ValueError("a state with a damaged envelope")
    version, schema, of_key, ttl, tail, body_check, header_check = _HEADER.unpack_from(data, start)
    if crc32(data[start : start + _FIELDS.size]) != header_check:
        raise ValueError("a damaged header")
    if version != _VERSION or of_key != digest(key.encode()):
        raise ValueError("an envelope of another version or key")
    if schema != fingerprint:
        raise OtherSchema("an envelope of another schema")
    body = data[start + HEADER_BYTES :]
    if crc32(body) != body_check:
        raise ValueError("a damaged body")
    return kind, tag_ids_in(data, _COUNT_AT) if count else (), ttl, tail, body


def encode_tags(ids: Sequence[str], generations: Iterable[bytes]) -> bytes:
    """Return tags with their generations as an entry contains them; raise `ValueError` for different numbers."""
    pairs = zip(ids, generations, strict=True)
    return bytes([len(ids)]) + b"".join([tag.encode() + generation for tag, generation in pairs])


def tag_ids_in(data: bytes, at: int = 0) -> tuple[str, ...]:
    """Return the ids of the tags that `encode_tags` has encoded, from the position `at` on."""
    starts = range(at + 1, at + 1 + data[at] * _TAG_BYTES, _TAG_BYTES)
    return tuple([data[start : start + _GENERATION_BYTES].decode("latin-1") for start in starts])

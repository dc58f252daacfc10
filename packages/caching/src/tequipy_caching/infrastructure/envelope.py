"""The envelope: what surrounds a value in Redis and tells whether it may be believed."""

import secrets
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

_VALUE: Final = b"\x01"
"""The version of the layout; another one is no value."""
_TOMBSTONE: Final = b"\x00"
_DIGEST: Final = 8
_TOKEN: Final = 16
# version, digest of the schema, digest of the key, token, milliseconds kept beyond the life, checksum of the body
_FIELDS: Final = Struct(f">c{_DIGEST}s{_DIGEST}s{_TOKEN}sQ{_DIGEST}s")
HEADER_BYTES: Final = _FIELDS.size + _DIGEST
"""A header begins every value and tells it from every other: its token is random."""


class Opened(NamedTuple):
    """What was in an envelope."""

    body: bytes
    tail: int
    """Milliseconds that Redis keeps the value beyond its life."""


def digest(*parts: bytes) -> bytes:
    """Return a short BLAKE2b digest: against damage and mistakes, not against an attacker who can write to Redis."""
    state = blake2b(digest_size=_DIGEST)
    for part in parts:
        state.update(part)
    return state.digest()


def seal(fingerprint: bytes, key: str, body: bytes, *, tail: int) -> bytes:
    """Return an envelope for one key and one shape of value."""
    token = secrets.token_bytes(_TOKEN)
    fields = _FIELDS.pack(_VALUE, fingerprint, digest(key.encode()), token, tail, digest(body))
    return b"".join((fields, digest(fields), body))


def unseal(fingerprint: bytes, key: str, sealed: bytes) -> Opened:
    """Return what is in an envelope; raises `ValueError` for what is damaged, foreign or of another key or shape."""
    if len(sealed) < HEADER_BYTES or digest(sealed[: _FIELDS.size]) != sealed[_FIELDS.size : HEADER_BYTES]:
        raise ValueError("not an envelope, or a damaged one")
    version, shape, of_key, _token, tail, checksum = _FIELDS.unpack_from(sealed)
    if version != _VALUE or shape != fingerprint or of_key != digest(key.encode()):
        raise ValueError("an envelope of another version, shape or key")
    body = sealed[HEADER_BYTES:]
    if digest(body) != checksum:
        raise ValueError("a damaged body")
    return Opened(body, tail)


def tombstone() -> bytes:
    """Return what stands in the place of a deleted value: like no other, so that no two states look the same."""
    return _TOMBSTONE + secrets.token_bytes(_TOKEN)


def is_tombstone(sealed: bytes) -> bool:
    """Tell whether these bytes stand for a deleted value."""
    return sealed[:1] == _TOMBSTONE and len(sealed) == 1 + _TOKEN

"""The envelope: what surrounds a value in Redis and tells whether it may be believed.

What Redis holds under a name is a state, which no other equals, and for a value: the generation of its cache, its tags
with theirs (both put in by the scripts) and an envelope with the value's bytes.
"""

import secrets
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

VALUE: Final = b"V"
EXPIRED: Final = b"X"
TOMBSTONE: Final = b"D"

_DIGEST: Final = 8
_TOKEN: Final = 15
STATE_BYTES: Final = 1 + _TOKEN + _DIGEST
GENERATION_BYTES: Final = 16
"""Of a generation and of a tag's id: hexadecimal digits."""
_TAG_BYTES: Final = 2 * GENERATION_BYTES
_VERSION: Final = b"\x02"
"""Of the layout; another one is no value."""
# version, digest of the schema, digest of the key, life and time kept beyond it in milliseconds, checksum of the body
_FIELDS: Final = Struct(f">c{_DIGEST}s{_DIGEST}sQQ{_DIGEST}s")
HEADER_BYTES: Final = _FIELDS.size + _DIGEST


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


def digest(*parts: bytes) -> bytes:
    """Return a short BLAKE2b digest: against damage and mistakes, not against an attacker who can write to Redis."""
    state = blake2b(digest_size=_DIGEST)
    for part in parts:
        state.update(part)
    return state.digest()


def new_state(kind: bytes) -> bytes:
    """Return a state that no other equals."""
    state = kind + secrets.token_bytes(_TOKEN)
    return state + digest(state)


def take_apart(data: bytes) -> Stored:
    """Return the parts of what Redis holds; raises `ValueError` for what is damaged or foreign."""
    state, check = data[: 1 + _TOKEN], data[1 + _TOKEN : STATE_BYTES]
    if digest(state) != check:
        raise ValueError("not a state, or a damaged one")
    kind = state[:1]
    if len(data) == STATE_BYTES:
        return Stored(kind, (), b"")
    start = STATE_BYTES + GENERATION_BYTES
    end = start + 1 + data[start] * _TAG_BYTES if len(data) > start else 0
    if kind == TOMBSTONE or not start < end <= len(data):
        raise ValueError("a state with damaged tags")
    tags = [data[at : at + GENERATION_BYTES] for at in range(start + 1, end, _TAG_BYTES)]
    return Stored(kind, tuple([tag.decode("latin-1") for tag in tags]), data[end:])


def seal(fingerprint: bytes, key: str, body: bytes, *, life: int, tail: int) -> bytes:
    """Return an envelope for one key and one shape of value."""
    fields = _FIELDS.pack(_VERSION, fingerprint, digest(key.encode()), life, tail, digest(body))
    return b"".join((fields, digest(fields), body))


def unseal(fingerprint: bytes, key: str, sealed: bytes) -> Opened:
    """Return what is in an envelope; raises `ValueError` for what is damaged, foreign or of another key or shape."""
    if len(sealed) < HEADER_BYTES or digest(sealed[: _FIELDS.size]) != sealed[_FIELDS.size : HEADER_BYTES]:
        raise ValueError("not an envelope, or a damaged one")
    version, shape, of_key, life, tail, checksum = _FIELDS.unpack_from(sealed)
    if version != _VERSION or shape != fingerprint or of_key != digest(key.encode()):
        raise ValueError("an envelope of another version, shape or key")
    body = sealed[HEADER_BYTES:]
    if digest(body) != checksum:
        raise ValueError("a damaged body")
    return Opened(body, life, tail)

"""Ids for primary keys, ordered in time: new ones (UUIDv7), and ones derived from another row or a time (UUIDv8).

An index stays compact when new keys are added at its end (RFC 9562, sections 5.7 and 6.11).
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7  # reseeds itself in every forked child process

__all__ = ["derived_id", "occurrence_id", "uuid7"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION: Final = 0x8 << 76
_VARIANT: Final = 0b10 << 62
_FREE_BITS: Final = ~(0xF << 76 | 0b11 << 62)


def derived_id(source: UUID, name: str) -> UUID:
    """Return the id of something that results from `source` and may be created more than once, as a UUIDv8.

    Equal arguments give the same id, so that a second creation meets the first one's row. The first 48 bits are those
    of `source`, in a UUIDv7 or v8 its milliseconds since 1970, so the result is ordered in time like `source`. The
    other bits are from SHA-256 (RFC 9562, section 5.8). An id of another version has no time that could be kept; it is
    accepted, because a single row with such an id must not stop those who process all rows.
    """
    return _uuid8(source.bytes[:6], source.bytes + name.encode())


def occurrence_id(name: str, at: datetime) -> UUID:
    """Return the id of the occurrence at `at` of a recurring thing, as a UUIDv8 ordered by `at`.

    Equal arguments give the same id, whatever the time zone of `at`; occurrences of several names at the same time have
    different ids. Raises `ValueError` for a time without a time zone or before 1970.
    """
    if at.utcoffset() is None:
        raise ValueError("the time of an occurrence needs a time zone")
    microseconds = (at - _EPOCH) // timedelta(microseconds=1)
    if microseconds < 0:
        raise ValueError("the time of an occurrence is before 1970")
    # The first bytes of the hash's input are zeros, unlike those of any derived id of the same time.
    return _uuid8((microseconds // 1000).to_bytes(6), microseconds.to_bytes(16) + name.encode())


def _uuid8(timestamp: bytes, content: bytes) -> UUID:
    value = int.from_bytes(timestamp + sha256(content).digest()[:10])
    return UUID(int=value & _FREE_BITS | _VERSION | _VARIANT)

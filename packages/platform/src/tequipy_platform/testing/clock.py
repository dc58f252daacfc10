"""A clock and ids that tests can predict."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from tequipy_platform._clock import Clock

EPOCH = datetime(2026, 1, 31, 10, 30, tzinfo=UTC)
"""The default start time of a `FrozenClock`."""


class FrozenClock(Clock):
    """A clock that changes only when it is advanced."""

    def __init__(self, now: datetime = EPOCH) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the clock's current time."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Advance the clock."""
        self._now += by


class CountingIds:
    """A source of ids 1, 2, 3, … in the form of UUIDv7."""

    def __init__(self) -> None:
        self._made = 0

    def __call__(self) -> UUID:
        """Return the next id."""
        self._made += 1
        return UUID(f"01900000-0000-7000-8000-{self._made:012x}")

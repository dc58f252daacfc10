"""Ports for the time, ids and random bytes, which are injected wherever a rule depends on them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

IdSource = Callable[[], UUID]
"""Returns a new id: in production a UUIDv7 (RFC 9562, section 5.7), so that primary keys grow with time."""

RandomSource = Callable[[int], bytes]
"""Returns the given number of random bytes: in production `secrets.token_bytes`."""


class Clock(ABC):
    """The source of the current time."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the current time, timezone-aware, in UTC."""


class SystemClock(Clock):
    """The clock of the operating system."""

    def now(self) -> datetime:
        """Return the system's current time in UTC."""
        return datetime.now(UTC)

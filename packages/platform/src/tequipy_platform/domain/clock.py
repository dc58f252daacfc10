"""Time and identity, injected wherever a rule depends on them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

IdSource = Callable[[], UUID]
"""Makes ids: UUIDv7 (RFC 9562, section 5.7) in production, so that primary keys grow with time."""

RandomSource = Callable[[int], bytes]
"""Returns that many random bytes: `secrets.token_bytes` in production."""


class Clock(ABC):
    """Tells the time."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""


class SystemClock(Clock):
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the machine's present moment in UTC."""
        return datetime.now(UTC)

"""A small set that lives in every process: its port, and how it is rebuilt."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping

Source = Callable[[], Awaitable[Mapping[str, float]]]
"""Returns the members as the caller's own records have them, with the seconds that each has left."""


class ExpiringSet(ABC):
    """Strings that every process holds in its memory, each until its time is over.

    Members leave by time alone. Nothing here raises for an absent Redis, whatever `on_error` says.
    """

    @property
    @abstractmethod
    def live(self) -> bool:
        """Whether this process hears of every new member and has compared its own with Redis and the source."""

    @abstractmethod
    async def add(self, *members: str, ttl: float) -> None:
        """Add members for `ttl` seconds: here at once, everywhere within milliseconds.

        Adding again keeps the longer life. With Redis away it is sent once Redis is back. Raises `ValueError` for a
        `ttl` of 0 or less.
        """

    @abstractmethod
    def __contains__(self, member: object) -> bool:
        """Tell whether this process knows the member, without I/O; a no is trustworthy while `live`."""

    @abstractmethod
    async def contains(self, member: str) -> bool:
        """Tell whether it is a member: from memory while `live`, from Redis otherwise.

        With Redis gone too, it is what this process knows.
        """

"""A small set that lives in every process: its port, and how it is rebuilt."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping

from tequipy_caching.domain.policies import MOST

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
        `ttl` of 0 or less, and `TypeError` for a member that is no str.
        """

    @abstractmethod
    def __contains__(self, member: object) -> bool:
        """Tell whether this process knows the member, without I/O; a no is trustworthy while `live`."""

    @abstractmethod
    async def contains(self, member: str) -> bool:
        """Tell whether it is a member: from memory while `live`, from Redis otherwise.

        With Redis gone too, it is what this process knows.
        """


def check_member(member: str) -> None:
    """Raise `TypeError` for what is no str, and `ValueError` for a string that is no text (lone surrogates)."""
    if not isinstance(member, str):
        raise TypeError(f"a member is a str, not {type(member).__name__}")
    member.encode()


def ttls_of(answer: Mapping[str, float]) -> dict[str, float]:
    """Return what a source has answered, none for longer than can be counted; whatever is wrong with it is raised."""
    for member in answer:
        check_member(member)
    return {member: min(MOST, left) for member, left in answer.items()}

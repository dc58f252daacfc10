"""The port of the expiring set, and the type of the source that it is rebuilt from."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping

from tequipy_caching.cache.policies import MAX_VALUE

Source = Callable[[], Awaitable[Mapping[str, float]]]
"""Returns the members from the caller's own database, with the seconds until each one expires."""


class ExpiringSet(ABC):
    """A set of strings that every process holds in memory, each member until its own expiry.

    Members cannot be removed. No method raises when Redis is unreachable, not even with `on_error="raise"`.
    """

    @property
    @abstractmethod
    def live(self) -> bool:
        """Whether this process receives every new member, and has compared its members with Redis and the source."""

    @abstractmethod
    async def add(self, *members: str, ttl: float) -> None:
        """Add members for `ttl` seconds: in this process at once, in all others within milliseconds.

        A member that is added again keeps the later expiry. Without Redis the members are sent when it is reachable
        again. Raises `ValueError` for a `ttl` of 0 or less, and `TypeError` for a member that is not a str.
        """

    @abstractmethod
    def __contains__(self, member: object) -> bool:
        """Return whether this process holds the member, without I/O; False is reliable only while `live`."""

    async def contains(self, member: str) -> bool:
        """Return whether it is a member, like `contains_any`."""
        return await self.contains_any((member,))

    @abstractmethod
    async def contains_any(self, members: Collection[str]) -> bool:
        """Return whether at least one of these is a member: from memory while `live`, otherwise by a request to Redis.

        If Redis does not answer, the answer comes from memory. In that case, and while Redis refuses writes and so may
        lack members, the source is read within about a second.
        """


def check_member(member: str) -> None:
    """Raise `TypeError` for a member that is not a str, and `ValueError` for one with lone surrogates."""
    if not isinstance(member, str):
        raise TypeError(f"a member is a str, not {type(member).__name__}")
    member.encode()


def ttls_of(answer: Mapping[str, float]) -> dict[str, float]:
    """Check the answer of a source and return it, with ttls limited to `MAX_VALUE`; raises like `check_member`."""
    for member in answer:
        check_member(member)
    return {member: min(MAX_VALUE, left) for member, left in answer.items()}

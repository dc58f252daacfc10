"""The members of an expiring set in the memory of a process."""

from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from time import monotonic
from typing import Final

_MAX_REMOVALS: Final = 64
"""How many expired members one addition removes: more would make it slow."""


class Members:
    """Members and their expiries, by the monotonic clock of this process; every addition removes some expired ones."""

    def __init__(self) -> None:
        self._expiries: dict[str, float] = {}
        self._by_expiry: list[tuple[float, str]] = []

    def __contains__(self, member: object) -> bool:
        return self._expiries.get(member, 0.0) > monotonic()  # type: ignore[call-overload,no-any-return]  # -- `in` accepts any object

    def has_any(self, members: Collection[str]) -> bool:
        """Return whether at least one of these is a member."""
        if self._expiries.keys().isdisjoint(members):  # the usual case, in one call
            return False
        return any(member in self for member in members)

    def __len__(self) -> int:
        """Return the number of members, with those that have expired and are not removed yet."""
        return len(self._expiries)

    def add(self, member: str, expires_at: float) -> None:
        """Add a member, or extend its ttl; an earlier expiry than the known one has no effect."""
        if expires_at > max(self._expiries.get(member, 0.0), monotonic()):
            self._expiries[member] = expires_at
            heappush(self._by_expiry, (expires_at, member))
        for passed, expired in self._expired():
            if self._expiries.get(expired) == passed:  # unless it was added again
                del self._expiries[expired]

    def ttls(self) -> dict[str, float]:
        """Return the remaining seconds of each member."""
        now = monotonic()
        return {member: expires_at - now for member, expires_at in self._expiries.items() if expires_at > now}

    def expiries(self) -> list[tuple[str, float]]:
        """Return each member with its expiry."""
        return list(self._expiries.items())

    def _expired(self) -> Iterator[tuple[float, str]]:
        """Remove the first expiries that have passed from the heap, and yield them."""
        now = monotonic()
        for _ in range(_MAX_REMOVALS):
            if not self._by_expiry or self._by_expiry[0][0] > now:
                return
            yield heappop(self._by_expiry)

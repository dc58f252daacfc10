"""The first tier: what this process holds."""

from time import monotonic
from typing import Generic, TypeVar

from cachetools import TTLCache

from tequipy_caching.domain.policies import CachePolicy
from tequipy_caching.domain.ports import MISSING, Missing

V = TypeVar("V")


class MemoryTier(Generic[V]):
    """A `TTLCache`, which bounds size and longest life; each entry has a deadline of its own, which may be earlier."""

    def __init__(self, policy: CachePolicy) -> None:
        self._longest = min(policy.ttl, policy.l1_ttl or policy.ttl)
        self._entries: TTLCache[str, tuple[float, V]] = TTLCache(policy.l1_maxsize, self._longest)
        self._keeps = "l1" in policy.tiers

    def get(self, name: str) -> V | Missing:
        """Return a value that is still fresh."""
        try:
            deadline, value = self._entries[name]  # cheaper than .get, which looks twice
        except KeyError:
            return MISSING
        return value if monotonic() < deadline else MISSING

    def set(self, name: str, value: V, life: float) -> None:
        """Keep a value for `life` seconds, at most as long as the policy says."""
        if self._keeps:
            self._entries[name] = (monotonic() + min(life, self._longest), value)

    def delete(self, name: str) -> None:
        """Drop a value."""
        self._entries.pop(name, None)

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()

"""The manager under test, and the helpers that all cases use."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from tequipy_caching._ports import CacheManager
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.policies import CachePolicy
from tequipy_caching.cache.ports import Cache


class Absent(LookupError):
    """An exception of a factory that the policies `shy` and `coy` cache."""


POLICIES: Final[Mapping[str, CachePolicy]] = {
    "words": CachePolicy(ttl=60),
    "others": CachePolicy(ttl=60),
    "local": CachePolicy(ttl=60, tiers="l1"),
    "remote": CachePolicy(ttl=60, tiers="l2"),
    "brief": CachePolicy(ttl=0.05, jitter=0),
    "hasty": CachePolicy(ttl=60, hard_timeout=0.05),
    "safe": CachePolicy(ttl=0.05, jitter=0, fail_safe=60, fail_safe_throttle=0.05, hard_timeout=0.2),
    "soft": CachePolicy(ttl=0.05, jitter=0, fail_safe=60, fail_safe_throttle=0.05, soft_timeout=0.05),
    "soft-cluster": CachePolicy(
        ttl=0.05, jitter=0, fail_safe=60, fail_safe_throttle=0.05, soft_timeout=0.05, lock="cluster"
    ),
    # "shy" and "coy" cache exceptions; for "coy" these live longer than values.
    "shy": CachePolicy(ttl=60, negative={LookupError: 30}),
    "coy": CachePolicy(ttl=0.05, jitter=0, negative={LookupError: 30}),
    "ahead": CachePolicy(ttl=60, jitter=0, refresh_ahead=0.001),
    "cluster": CachePolicy(ttl=60, lock="cluster", hard_timeout=5),
}
"""The policies that a manager under test must be built with."""


@dataclass(frozen=True, slots=True)
class CacheTarget:
    """Describes the manager under test."""

    start: Callable[[], Awaitable[CacheManager]]
    """Starts a manager with `POLICIES` that receives invalidations as another process does; the fixture stops it."""
    shared: bool = True
    """Whether these managers share their values; if not, the cases about several processes are skipped."""
    advance: Callable[[float], Awaitable[Any]] = asyncio.sleep
    """Lets this many seconds pass on the clock of the managers."""

    async def cache(self, name: str) -> Cache[Any]:
        """Return a cache of a new manager."""
        return (await self.start()).cache(name, str | None)


class Factory:
    """A factory that counts its calls; with `held` it waits for `go` before it returns."""

    def __init__(self, value: Any, *, held: bool = False) -> None:  # noqa: ANN401 -- a value or exception
        self.calls = 0
        self.go = asyncio.Event()
        self._value = value
        if not held:
            self.go.set()

    async def __call__(self) -> Any:  # noqa: ANN401 -- as above
        """Return the value, or raise the exception."""
        self.calls += 1
        await self.go.wait()
        if isinstance(self._value, Exception):
            raise self._value
        return self._value

    async def many(self, keys: Sequence[Key]) -> dict[Key, Any]:
        """Return the value for each key."""
        return dict.fromkeys(keys, await self())

    async def called(self) -> None:
        """Wait until it has been called."""
        await eventually(lambda: self.calls > 0)


async def eventually(probe: Callable[[], bool | Awaitable[bool]], seconds: float = 20) -> None:
    """Wait until the probe returns true; fail after `seconds`."""
    deadline = monotonic() + seconds
    while True:
        result = probe()
        if result if isinstance(result, bool) else await result:
            return
        assert monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.002)


CHANGES: Final[Mapping[str, Callable[[Cache[Any]], Awaitable[None]]]] = {
    "set": lambda cache: cache.set("ada", "new"),
    "delete": lambda cache: cache.delete("ada"),
    "expire": lambda cache: cache.expire("ada"),
    "tag": lambda cache: cache.delete_by_tag("team"),
    "clear": lambda cache: cache.clear(),
}
"""Every way to invalidate the key `ada`, stored with the tag `team`."""

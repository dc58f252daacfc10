"""Load leases, for `lock="cluster"`: of all processes that miss a key one loads it, and then wakes the others."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.tiers import Channel, SharedTier

V = TypeVar("V")

_LOOK_AGAIN: Final = 0.1
"""Seconds after which a process that is disconnected from the channel looks again whether a lease was released."""


class LoadLeases(Generic[V]):
    """The load leases of one cache; one whose process was killed ends after `lease_ttl` seconds."""

    def __init__(self, shared: SharedTier[V], channel: Channel, *, lease_ttl: float) -> None:
        self._shared = shared
        self._channel = channel
        self._lease_ttl = lease_ttl
        self._waiting: dict[Key, set[asyncio.Event]] = {}

    async def load_or_wait(
        self, keys: Sequence[Key], tags: Sequence[str], load: Callable[[Sequence[Key]], Awaitable[None]]
    ) -> Sequence[Key]:
        """Call `load` for the keys whose leases are free, and return the keys whose leases other processes hold.

        Waits for the latter until one of these leases is released, or the last one ends. While disconnected from the
        channel, as a process is when it has just started, it waits for a moment only, because no message may end the
        wait. If Redis is unreachable, all keys are loaded.
        """
        token = secrets.token_hex(8)
        freed = asyncio.Event()
        for key in keys:  # before the request, because a lease may be released before its answer arrives
            self._waiting.setdefault(key, set()).add(freed)
        try:
            seconds_held = await self._acquire(keys, tags, token)
            held_by_others = [key for key, seconds in seconds_held.items() if seconds]
            acquired = [key for key, seconds in seconds_held.items() if not seconds]
            if acquired:
                try:
                    await load(acquired)
                finally:
                    with suppress(CacheUnavailable):  # the leases expire by themselves
                        await self._shared.unlock(acquired, token)
            if held_by_others:
                longest = max(seconds_held.values())
                with suppress(TimeoutError):
                    async with asyncio.timeout(longest if self._channel.live else min(longest, _LOOK_AGAIN)):
                        await freed.wait()
            return held_by_others
        finally:
            for key in keys:
                self._stop_waiting(key, freed)

    def wake(self, key: Key) -> None:
        """Wake the callers that wait for a key, because another process has released its lease."""
        for freed in self._waiting.get(key, ()):
            freed.set()

    def wake_all(self) -> None:
        """Wake all waiting callers, because a message may have been lost."""
        for key in self._waiting:
            self.wake(key)

    async def _acquire(self, keys: Sequence[Key], tags: Sequence[str], token: str) -> Mapping[Key, float]:
        """Return for each key the seconds for which another process holds its lease; 0 if this process may load it."""
        with suppress(CacheUnavailable):
            return await self._shared.lock(keys, tags, token, self._lease_ttl)
        return dict.fromkeys(keys, 0.0)

    def _stop_waiting(self, key: Key, freed: asyncio.Event) -> None:
        waiting = self._waiting[key]
        waiting.discard(freed)
        if not waiting:
            del self._waiting[key]

"""The cluster lock: of all processes that miss a key one loads it, and then wakes the others."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.tiers import Channel, SharedTier
from tequipy_caching.exceptions import CacheUnavailable

V = TypeVar("V")


class AcquiredLeases(Generic[V]):
    """The leases that one request has acquired, and those that other processes hold."""

    def __init__(self, shared: SharedTier[V], token: str, left: Mapping[Key, float]) -> None:
        self.acquired = [key for key, seconds in left.items() if not seconds]
        self.held_by_others = {key: seconds for key, seconds in left.items() if seconds}
        """The keys that other processes load, with the seconds until their leases end."""
        self._held = self.acquired
        self._shared = shared
        self._token = token

    async def release(self) -> None:
        """Release the acquired leases."""
        held, self._held = self._held, []
        if held:
            with suppress(CacheUnavailable):  # the lease expires by itself
                await self._shared.unlock(held, self._token)


class LoadLeases(Generic[V]):
    """The leases of one cache; `lease_ttl` is the number of seconds after which the lease of a killed process ends."""

    def __init__(self, shared: SharedTier[V], channel: Channel, *, lease_ttl: float) -> None:
        self._shared = shared
        self._channel = channel
        self._lease_ttl = lease_ttl
        self._waiting: dict[Key, set[asyncio.Event]] = {}

    async def load_or_wait(
        self, keys: Sequence[Key], tags: Sequence[str], load: Callable[[Sequence[Key]], Awaitable[None]]
    ) -> Sequence[Key]:
        """Load the keys whose leases are free, wait until another process has loaded one of the others; return these.

        Without the shared tier, or while disconnected from the channel, all keys are loaded, because no message could
        end the wait.
        """
        freed = asyncio.Event()
        for key in keys:  # before the request, because a lease may be released before its answer arrives
            self._waiting.setdefault(key, set()).add(freed)
        try:
            taken = await self._acquire(keys, tags)
            try:
                if taken.acquired:
                    await load(taken.acquired)
            finally:
                await taken.release()
            if taken.held_by_others:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(taken.held_by_others.values())):
                        await freed.wait()
            return list(taken.held_by_others)
        finally:
            for key in keys:
                self._forget(key, freed)

    def wake(self, key: Key) -> None:
        """Wake the callers that wait for a key, because another process has released its lease."""
        for freed in self._waiting.get(key, ()):
            freed.set()

    def wake_all(self) -> None:
        """Wake all waiting callers, because a message may have been lost."""
        for key in self._waiting:
            self.wake(key)

    async def _acquire(self, keys: Sequence[Key], tags: Sequence[str]) -> AcquiredLeases[V]:
        token = secrets.token_hex(8)
        left: Mapping[Key, float] = dict.fromkeys(keys, 0.0)
        if self._channel.live:
            with suppress(CacheUnavailable):
                left = await self._shared.lock(keys, tags, token, self._lease_ttl)
        return AcquiredLeases(self._shared, token, left)

    def _forget(self, key: Key, freed: asyncio.Event) -> None:
        waiting = self._waiting[key]
        waiting.discard(freed)
        if not waiting:
            del self._waiting[key]

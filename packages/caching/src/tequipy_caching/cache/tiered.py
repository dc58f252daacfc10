"""The cache: looks keys up in memory, then in Redis, and loads those that neither has."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.cache.changes import Changes, Kind
from tequipy_caching.cache.keys import BATCH_SIZE, Key, canonical, canonical_all, tag_ids, value_tags
from tequipy_caching.cache.loader import Loader, LoadRequest
from tequipy_caching.cache.local_store import Memory
from tequipy_caching.cache.metrics import CacheMetrics
from tequipy_caching.cache.policies import CachePolicy, check_ttl
from tequipy_caching.cache.ports import MISSING, Cache, Missing
from tequipy_caching.cache.recovery import RecoveryQueue
from tequipy_caching.cache.single_flight import InFlightLoads
from tequipy_caching.cache.tiers import Change, Channel, SharedTier

V = TypeVar("V")


class TieredCache(Cache[V], Generic[V]):
    """The implementation of `Cache`: keeps values in L1 (`memory`) and L2 (`shared`).

    `lease_ttl` is the longest time in seconds for which a process holds a load lease. With `strict`, callers get
    `CacheUnavailable` instead of going on without Redis.
    """

    def __init__(
        self,
        name: str,
        type_: Any,  # noqa: ANN401 -- types, unions and special forms
        policy: CachePolicy,
        *,
        memory: Memory[V],
        shared: SharedTier[V],
        channel: Channel,
        recovery: RecoveryQueue,
        lease_ttl: float,
        strict: bool,
        metrics: CacheMetrics,
    ) -> None:
        self.type = type_
        self._policy = policy
        self._memory = memory
        self._shared = shared
        self._channel = channel
        self._changes = Changes(name, shared, recovery, strict=strict)
        self._in_flight: InFlightLoads[V] = InFlightLoads(name, metrics.tally("cache_coalesced_waiters", name))
        self._loader = Loader(
            name,
            policy,
            memory=memory,
            shared=shared,
            changes=self._changes,
            channel=channel,
            strict=strict,
            lease_ttl=lease_ttl,
            metrics=metrics,
        )
        self._l1_hits = metrics.tally("cache_requests", name, "l1", "hit")

    async def get(self, key: Key, default: Any = None) -> Any:  # noqa: ANN401 -- the port's overloads have the types
        """Return the value of a key, or the default."""
        key = canonical(key)
        value = self._hit(key)
        if value is not MISSING:
            return value
        if self._channel.live and (entry := self._memory.find(key)) is not None:
            self._l1_hits.count += 1
            return default if entry.error is not None else entry.value
        return (await self._loader.lookup([key])).get(key, default)

    async def get_or_set(
        self, key: Key, factory: Callable[[], Awaitable[V]], ttl: float | None = None, tags: Collection[str] = ()
    ) -> V:
        """Return the cached value, or call `factory` and store its result; concurrent callers share one call."""
        if ttl is not None:
            check_ttl(ttl)
        key = canonical(key)
        value = self._hit(key)
        if value is not MISSING:
            return value
        request = LoadRequest(partial(_one, factory), ttl, value_tags(tags))
        if self._channel.live and (value := self._from_memory(key, request)) is not MISSING:
            return value
        while True:
            found = await self._join([key], request)
            if key in found:
                return found[key]
            # The caller joined the load of a batch whose factory omitted the key, so it starts its own.

    async def get_many(self, keys: Iterable[Key]) -> dict[Key, V]:
        """Return the values of the keys that have one, in one round trip."""
        wanted = list(dict.fromkeys(map(canonical, keys)))
        found, missing = self._many_from_memory(wanted)
        return found | await self._loader.lookup(missing) if missing else found

    async def get_or_set_many(
        self,
        keys: Iterable[Key],
        factory: Callable[[Sequence[Key]], Awaitable[Mapping[Key, V]]],
        ttl: float | None = None,
        tags: Collection[str] = (),
    ) -> dict[Key, V]:
        """Return the values of keys; one load for all that are missing."""
        check_ttl(ttl)
        wanted = list(dict.fromkeys(map(canonical, keys)))
        found, missing = self._many_from_memory(wanted)
        if missing:
            loaded = await self._join(missing, LoadRequest(factory, ttl, value_tags(tags)))
            found |= {key: loaded[key] for key in missing if key in loaded}
        return found

    async def set(self, key: Key, value: V, ttl: float | None = None, tags: Collection[str] = ()) -> None:
        """Write a value to Redis and to the memory of this process; all other processes drop their copies."""
        check_ttl(ttl)
        key, jittered, ids = canonical(key), self._loader.jittered_ttl(ttl), value_tags(tags)
        encoded = self._shared.encode(key, value, jittered, ids)
        # Only Redis knows which of two concurrent writers was last. Each therefore drops the other's value from memory
        # and invalidates the other's guard, so that memory keeps neither.
        self._drop([key])
        with self._loader.guards.hold() as guard:
            try:
                write = self._shared.write(key, encoded) if encoded.fits else self._shared.remove([key])
                await self._changes.apply(write, keys=[key])
            finally:
                kept = guard.is_current(key) and encoded.fits
                self._drop([key])  # again: a lookup during the write may have read the old value
        if kept:
            self._memory.keep(key, value, jittered, ttl=jittered, tags=ids)

    async def delete(self, *keys: Key) -> None:
        """Remove keys in all processes; a load that began earlier cannot store the old value."""
        if keys:
            await self._change_keys(await canonical_all(keys), self._drop, self._shared.remove, "delete")

    async def expire(self, *keys: Key) -> None:
        """End the ttl of keys in all processes; `fail_safe` may serve the stale values."""
        if not self._policy.fail_safe:
            await self.delete(*keys)
        elif keys:
            await self._change_keys(await canonical_all(keys), self._expire, self._shared.expire, "expire")

    async def delete_by_tag(self, *tags: str) -> None:
        """Remove all values that were stored with one of the tags."""
        if ids := tag_ids(tags):
            drop = partial(self._drop_tags, ids)
            await self._change(drop, self._changes.apply(self._shared.remove_tags(ids), tags=ids))

    async def clear(self) -> None:
        """Remove all values."""
        await self._change(self._drop_all, self._changes.apply(self._shared.clear(), everything=True))

    def peek(self, key: Key) -> V | Missing:
        """Return the value in the memory of this process, or `MISSING` if there is no current one."""
        key = canonical(key)
        now = self._memory.clock()
        if now < self._channel.live_until:
            value = self._memory.fast_value(key, now)
            return value if value is not MISSING else self._memory.value(key)
        return self._memory.value(key) if self._shared.unreachable else MISSING

    def on_change(self, change: Change) -> None:
        """Apply a change of another process to the memory of this one."""
        match change.operation:
            case "delete":
                self._drop(change.keys)
            case "expire":
                self._expire(change.keys)
            case "tags":
                self._drop_tags(change.tags)
            case "clear":
                self._drop_all()
            case "released":
                for key in change.keys:
                    self._loader.leases.wake(key)

    def on_refused_change(self, change: Change) -> None:
        """Apply a change that Redis refused, and queue it: the first process that reaches Redis makes it there."""
        self.on_change(change)
        if change.operation == "expire":
            self._changes.enqueue(keys=change.keys, kind="expire")
        elif change.operation != "released":
            self._changes.enqueue(keys=change.keys, tags=change.tags, everything=change.operation == "clear")

    def on_gap(self) -> None:
        """Clear memory, because messages of other processes may have been missed."""
        self._drop_all()

    async def end(self) -> None:
        """Cancel all loads and clear memory."""
        await self._in_flight.cancel_all()
        self._drop_all()

    def _hit(self, key: Key) -> V | Missing:
        """Return and count the value of most hits: in memory, fresh, without tags; `MISSING` for all other cases."""
        now = self._memory.clock()
        if now >= self._channel.live_until:
            return MISSING
        value = self._memory.fast_value(key, now)
        if value is not MISSING:
            self._l1_hits.count += 1
        return value

    async def _join(self, keys: Sequence[Key], request: LoadRequest[V]) -> dict[Key, V]:
        if not self._channel.live:
            await self._forget_outdated_loads(keys)
        return await self._in_flight.join(keys, partial(self._loader.load, request), self._policy.soft_timeout)

    async def _forget_outdated_loads(self, keys: Sequence[Key]) -> None:
        """Keep callers from joining loads of keys that may have changed since; needed while disconnected.

        The state of the key that the load saw must be the current one. It is unknown if Redis was unreachable, or
        refused the load's mark, or if the load has found the value. Without Redis callers join every load.
        """
        loads = {} if self._shared.unreachable else await self._in_flight.looked_up(keys)
        if not loads:
            return
        seen = {key: load.seen[key] for key, load in loads.items() if key in load.seen}
        try:
            outdated = (loads.keys() - seen.keys()) | await self._shared.changed(seen)
        except CacheUnavailable:
            if self._shared.unreachable:
                return
            outdated = set(loads)  # the server has answered with an error
        for key in outdated:
            if self._in_flight.get(key) is loads[key]:
                self._in_flight.forget(key)

    def _from_memory(self, key: Key, request: LoadRequest[V]) -> V | Missing:
        """Return the fresh value in memory, starting a refresh ahead if it is due, or raise the cached exception."""
        entry = self._memory.find(key)
        if entry is None:
            return MISSING
        self._l1_hits.count += 1
        if entry.error is not None:
            raise entry.error.with_traceback(None)  # otherwise the traceback grows with each caller
        if self._memory.clock() >= entry.refresh_at:
            self._memory.mark_refreshing(entry)
            ahead = LoadRequest(request.factory, request.ttl, request.tags, ahead=True)
            self._in_flight.start_in_background(key, partial(self._loader.load, ahead))
        return entry.value

    def _many_from_memory(self, keys: Sequence[Key]) -> tuple[dict[Key, V], Sequence[Key]]:
        """Return the values in memory, and the missing keys; a key with a cached exception is in neither."""
        if not (self._memory.enabled and self._channel.live):
            return {}, keys
        found: dict[Key, V] = {}
        missing: list[Key] = []
        for key in keys:
            entry = self._memory.find(key)
            if entry is None:
                missing.append(key)
            elif entry.value is not MISSING:
                found[key] = entry.value
        self._l1_hits.count += len(keys) - len(missing)
        return found, missing

    async def _change_keys(
        self,
        keys: Sequence[Key],
        drop: Callable[[Iterable[Key]], None],
        change: Callable[[Sequence[Key]], Awaitable[None]],
        kind: Kind,
    ) -> None:
        """Change keys in batches, because a large change would block the event loop and Redis.

        If it ends early, the batches that were not sent are queued, so that no key is forgotten.
        """
        for start in range(0, len(keys), BATCH_SIZE):
            part, end = keys[start : start + BATCH_SIZE], start + BATCH_SIZE
            try:
                await self._change(partial(drop, part), self._changes.apply(change(part), keys=part, kind=kind))
                if end < len(keys):
                    await asyncio.sleep(0)  # without Redis no other await yields to the event loop
            except (CacheUnavailable, asyncio.CancelledError):
                drop(keys[end:])
                self._changes.enqueue(keys=keys[end:], kind=kind)
                raise

    async def _change(self, drop: Callable[[], None], change: Awaitable[None]) -> None:
        """Drop the local copies before and after a change of the shared tier."""
        drop()
        try:
            await change
        finally:
            drop()  # again: a lookup during the change may have read the old value

    def _drop(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._memory.drop(key)
            self._invalidate(key)

    def _expire(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._memory.expire(key)
            self._invalidate(key, may_serve_stale=True)

    def _drop_tags(self, ids: Iterable[str]) -> None:
        for tag in ids:
            self._memory.drop_tag(tag)
        self._invalidate_all()  # it is unknown which loads in flight have the tag

    def _drop_all(self) -> None:
        self._memory.clear()
        self._invalidate_all()
        self._loader.leases.wake_all()  # the message that releases a lease may be among the missed ones

    def _invalidate(self, key: Key, *, may_serve_stale: bool = False) -> None:
        self._loader.guards.invalidate(key, may_serve_stale=may_serve_stale)
        self._in_flight.forget(key)

    def _invalidate_all(self) -> None:
        self._loader.guards.invalidate_all()
        self._in_flight.forget_all()


async def _one(factory: Callable[[], Awaitable[V]], keys: Sequence[Key]) -> Mapping[Key, V]:
    return {keys[0]: await factory()}

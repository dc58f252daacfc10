"""Loads: look keys up, call the factory for the missing ones, store its results unless they were invalidated."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from random import random
from typing import Generic, TypeVar

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.cache.changes import Changes
from tequipy_caching.cache.factory_calls import Factory, FactoryCalls
from tequipy_caching.cache.invalidation_guard import InvalidationGuard, InvalidationGuards
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.leases import LoadLeases
from tequipy_caching.cache.local_store import Memory
from tequipy_caching.cache.metrics import CacheMetrics
from tequipy_caching.cache.policies import CachePolicy
from tequipy_caching.cache.ports import MISSING
from tequipy_caching.cache.single_flight import InFlightLoad
from tequipy_caching.cache.tiers import Channel, Lookup, SharedTier

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class LoadRequest(Generic[V]):
    """The parameters of a load."""

    factory: Factory[V]
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    """The ids of the tags, as `tag_id` returns them."""
    ahead: bool = False
    """Whether this is a refresh ahead: the cached value is still fresh, and is loaded again nevertheless."""


class Loader(Generic[V]):
    """Looks keys up in the tiers of one cache, calls factories, and stores their results."""

    def __init__(
        self,
        name: str,
        policy: CachePolicy,
        *,
        memory: Memory[V],
        shared: SharedTier[V],
        changes: Changes[V],
        channel: Channel,
        strict: bool,
        lease_ttl: float,
        metrics: CacheMetrics,
    ) -> None:
        self.guards = InvalidationGuards()
        self.leases = LoadLeases(shared, channel, lease_ttl=lease_ttl)
        self._policy = policy
        self._memory = memory
        self._shared = shared
        self._changes = changes
        self._channel = channel
        self._strict = strict
        self._factory_calls: FactoryCalls[V] = FactoryCalls(name, policy.hard_timeout, metrics)
        self._l1_misses = metrics.tally("cache_requests", name, "l1", "miss")
        self._l1_stale = metrics.tally("cache_requests", name, "l1", "stale")
        self._l2 = {result: metrics.tally("cache_requests", name, "l2", result) for result in ("hit", "miss", "stale")}
        self._fenced_fills = metrics.tally("cache_fenced_fills", name)

    async def load(self, request: LoadRequest[V], in_flight: InFlightLoad[V]) -> Mapping[Key, V]:
        """Return the values of the keys of an in-flight load, except for keys that the factory omits.

        With `lock="cluster"` each round loads the keys whose leases this process acquires. The other keys are looked up
        in the next round, when the process that holds a lease has stored its value or its lease has ended.
        """
        found: dict[Key, V] = {}
        if self._policy.lock == "process" or not self._shared.stores:
            await self._load(in_flight.keys, found, request, in_flight, offer_stale=True)
            return found
        others: Sequence[Key] = in_flight.keys
        while others:
            with self.guards.hold() as guard:
                missing = await self._lookup(others, found, guard, request, in_flight)
                if not missing:
                    break
                self._offer_stale_values(in_flight, missing, found, guard)
                # `_load` looks the keys up again, because another process may have loaded them before the lease was
                # acquired.
                load = partial(self._load, found=found, request=request, in_flight=in_flight, offer_stale=False)
                others = await self.leases.load_or_wait(list(missing), request.tags, load)
        return found

    async def lookup(self, keys: Sequence[Key]) -> dict[Key, V]:
        """Return the fresh values of keys that L1 does not have, and keep them there. Calls no factory."""
        with self.guards.hold() as guard:
            return self._keep_fresh(await self._read_tiers(keys, (), storing=False), guard)

    def jittered_ttl(self, ttl: float | None) -> float:
        """Return the ttl of a value, the policy's if None, shortened by the policy's jitter."""
        return (ttl or self._policy.ttl) * (1 - self._policy.jitter * random())  # noqa: S311 -- no secret

    async def _load(
        self,
        keys: Sequence[Key],
        found: dict[Key, V],
        request: LoadRequest[V],
        in_flight: InFlightLoad[V],
        *,
        offer_stale: bool,
    ) -> None:
        """Add the values of keys to `found`: those in the tiers, and for the others what the factory returns.

        With `offer_stale`, callers can get the stale values after their soft timeout.
        """
        with self.guards.hold() as guard:
            missing = await self._lookup(keys, found, guard, request, in_flight)
            if not missing:
                return
            if offer_stale:
                self._offer_stale_values(in_flight, missing, found, guard)
            try:
                values = await self._factory_calls.call(request.factory, list(missing))
            except Exception as error:  # noqa: BLE001 -- factories may raise any exception
                found |= self._serve_stale_or_raise(error, missing, guard, request)
            else:
                loaded = {key: values[key] for key in missing if key in values}
                await self._store_loaded(loaded, missing, guard, request)
                found |= loaded

    async def _lookup(
        self,
        keys: Sequence[Key],
        found: dict[Key, V],
        guard: InvalidationGuard,
        request: LoadRequest[V],
        in_flight: InFlightLoad[V],
    ) -> Mapping[Key, Lookup[V]]:
        """Add the fresh values of the tiers to `found`, and return the lookups of the other keys.

        Their states are recorded, because a disconnected process joins the load only if they are current.
        """
        lookups = await self._read_tiers(keys, request.tags, storing=True)
        found |= self._keep_fresh(lookups, guard, request)
        for key in keys:
            if key in found or lookups[key].seen is None:
                in_flight.seen.pop(key, None)
            else:
                in_flight.seen[key] = lookups[key].seen
        in_flight.looked_up.set()
        return {key: lookups[key] for key in keys if key not in found}

    def _offer_stale_values(
        self,
        in_flight: InFlightLoad[V],
        missing: Mapping[Key, Lookup[V]],
        found: Mapping[Key, V],
        guard: InvalidationGuard,
    ) -> None:
        """Let callers whose soft timeout ends before the load get the stale values of the missing keys."""

        def stale_values() -> Mapping[Key, V] | None:
            older = self._stale_values({key: lookup for key, lookup in missing.items() if key not in found}, guard)
            return None if older is None else {**older, **found}

        in_flight.stale_values = stale_values

    async def _read_tiers(
        self, keys: Sequence[Key], tags: tuple[str, ...], *, storing: bool
    ) -> Mapping[Key, Lookup[V]]:
        """Look keys up in Redis, or in memory if Redis is unreachable or may still hold invalidated values.

        The callers have already looked in memory as far as the process is connected.
        """
        self._l1_misses.count += len(keys)
        if not self._shared.stores:
            return {key: self._lookup_memory(key, trusted=self._shared.unreachable) for key in keys}
        not_pending = keys
        if self._changes.any_pending:  # rare, so the common case tests no key
            not_pending = [key for key in keys if not self._changes.is_pending(key)]
        unreachable = self._shared.unreachable
        try:
            lookups = dict(await self._shared.read(not_pending, tags, storing=storing)) if not_pending else {}
        except CacheUnavailable:
            if self._strict:
                raise
            lookups = {}
            # Read again: the server may have answered with an error, and then it is reachable.
            unreachable = self._shared.unreachable
        if self._changes.any_pending:  # checked again, because invalidations may have become pending meanwhile
            lookups = {key: lookup for key, lookup in lookups.items() if not self._changes.is_pending(key, lookup.tags)}
        hits = sum([lookup.value is not MISSING for lookup in lookups.values()])
        self._l2["hit"].count += hits
        self._l2["miss"].count += len(lookups) - hits
        for key in keys:
            if key not in lookups:
                lookups[key] = self._lookup_memory(key, trusted=unreachable or self._channel.live)
        return lookups

    def _lookup_memory(self, key: Key, *, trusted: bool) -> Lookup[V]:
        """Look a key up in memory; a miss unless `trusted`, because a disconnected process may hold invalidated values.

        Without Redis memory is trusted nevertheless, because there is no better source.
        """
        value = self._memory.value(key) if trusted else MISSING
        if value is not MISSING:
            self._l1_stale.count += 1
        return Lookup(value)

    def _keep_fresh(
        self, lookups: Mapping[Key, Lookup[V]], guard: InvalidationGuard, request: LoadRequest[V] | None = None
    ) -> dict[Key, V]:
        """Return the fresh values of lookups, and keep them in memory.

        In a refresh ahead, a value that is due for it counts as missing, unless another process has refreshed it.
        """
        ahead = self._policy.refresh_ahead if request is not None and request.ahead else None
        found: dict[Key, V] = {}
        for key, lookup in lookups.items():
            if lookup.value is MISSING or (ahead is not None and lookup.left <= lookup.ttl * (1 - ahead)):
                continue
            found[key] = lookup.value
            if lookup.left and self._memory.enabled and self._is_current(guard, key):
                self._memory.keep(key, lookup.value, lookup.left, ttl=lookup.ttl, tags=lookup.tags)
        return found

    def _is_current(self, guard: InvalidationGuard, key: Key) -> bool:
        """Return whether the value of a key may be kept; if not, count a fenced fill."""
        is_current = guard.is_current(key)
        if not is_current:
            self._fenced_fills.count += 1
        return is_current

    def _serve_stale_or_raise(
        self, error: Exception, missing: Mapping[Key, Lookup[V]], guard: InvalidationGuard, request: LoadRequest[V]
    ) -> Mapping[Key, V]:
        """Return stale values for keys whose load failed, or raise the error, caching it if the policy says so."""
        ttl = self._policy.negative_ttl(error)
        if ttl:
            key, *others = missing
            if not others and self._is_current(guard, key):  # of a batch it is unknown which key caused the error
                self._memory.keep_error(key, error, ttl, tags=request.tags)
            raise error
        values = None if request.ahead else self._stale_values(missing, guard)
        if values is None:
            raise error
        return values

    def _stale_values(self, missing: Mapping[Key, Lookup[V]], guard: InvalidationGuard) -> Mapping[Key, V] | None:
        """Return the stale values if all keys have one, else None; memory serves them for a while."""
        found: dict[Key, V] = {}
        for key, lookup in missing.items():
            if not guard.may_serve_stale(key):
                continue
            value = lookup.stale_value()
            if value is not MISSING and guard.is_current(key):
                self._memory.keep_stale(key, value, lookup.stale_left, tags=lookup.tags)
            elif value is MISSING and not lookup.tombstoned and (self._channel.live or self._shared.unreachable):
                # A disconnected process may not know that the key was deleted. Without Redis there is no better source.
                value = self._memory.stale_value(key)
                self._memory.serve_stale(key)
            if value is not MISSING:
                found[key] = value
        if len(found) < len(missing):
            return None
        self._l2["stale"].count += len(found)
        return found

    async def _store_loaded(
        self,
        loaded: Mapping[Key, V],
        missing: Mapping[Key, Lookup[V]],
        guard: InvalidationGuard,
        request: LoadRequest[V],
    ) -> None:
        """Store loaded values in Redis, and keep in memory those whose keys have not changed."""
        ttls = {key: self.jittered_ttl(request.ttl) for key in loaded}
        encoded = {key: self._shared.encode(key, value, ttls[key], request.tags) for key, value in loaded.items()}
        offered = {key: (encoded[key], missing[key].seen) for key in loaded if encoded[key].fits and missing[key].seen}
        changed: AbstractSet[Key] = set()
        if offered:
            try:
                changed = await self._shared.store(offered)
            except CacheUnavailable:
                if self._strict:
                    raise
        for key, value in loaded.items():
            # Redis may not have stored the value, because it was unreachable or has lost the state of the key. If the
            # key has changed meanwhile, either the guard knows it, or the channel has a gap, which clears memory.
            if key in changed:
                self._fenced_fills.count += 1
            elif encoded[key].fits and self._is_current(guard, key):
                self._memory.keep(key, value, ttls[key], ttl=ttls[key], tags=request.tags)

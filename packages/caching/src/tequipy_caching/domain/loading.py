"""The load: look, call the factory for what is missing, keep what it gives unless it was invalidated meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from random import random
from time import monotonic
from typing import Generic, TypeVar

from tequipy_caching.domain.changes import Changes
from tequipy_caching.domain.exceptions import CacheUnavailable, LoadTimeout
from tequipy_caching.domain.fences import Fence, Fences
from tequipy_caching.domain.flights import Flight
from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.leases import Leases
from tequipy_caching.domain.memory import Memory
from tequipy_caching.domain.metrics import CacheMetrics
from tequipy_caching.domain.policies import CachePolicy
from tequipy_caching.domain.ports import MISSING
from tequipy_caching.domain.tiers import Channel, Look, SharedTier

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Order(Generic[V]):
    """What a caller wants loaded, and how it is to be kept."""

    factory: Callable[[Sequence[Key]], Awaitable[Mapping[Key, V]]]
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    """The ids of its tags."""
    ahead: bool = False
    """Whether the value is still fresh, and to be loaded anew all the same."""


class Loader(Generic[V]):
    """Fills the tiers of one cache."""

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
        lease: float,
        metrics: CacheMetrics,
    ) -> None:
        self.fences = Fences()
        self.leases = Leases(shared, channel, lease=lease)
        self._name = name
        self._policy = policy
        self._memory = memory
        self._shared = shared
        self._changes = changes
        self._channel = channel
        self._strict = strict
        self._l1_misses = metrics.tally("cache_requests", name, "l1", "miss")
        self._l1_stale = metrics.tally("cache_requests", name, "l1", "stale")
        self._l2 = {result: metrics.tally("cache_requests", name, "l2", result) for result in ("hit", "miss", "stale")}
        self._loads = {
            outcome: metrics.tally("cache_loads", name, outcome) for outcome in ("ok", "error", "timeout", "cancelled")
        }
        self._load_seconds = metrics.seconds("cache_load_seconds", name)
        self._fenced = metrics.tally("cache_fenced_fills", name)
        self._left_behind: set[asyncio.Future[Mapping[Key, V]]] = set()

    async def load(self, flight: Flight[V], order: Order[V]) -> Mapping[Key, V]:
        """Return the values of a flight's keys; a key that the factory leaves out has none."""
        found: dict[Key, V] = {}
        if self._policy.lock == "process" or not self._shared.stores:
            await self._load(flight.keys, found, order, flight)
            return found
        others: Sequence[Key] = flight.keys
        while others:
            with self.fences.hold() as fence:
                missing = await self._look(others, found, fence, order)
                if not missing:
                    break
                self._note(flight, missing)
                self._let_stand_in(flight, missing, found, fence)
                others = await self.leases.share(
                    list(missing), order.tags, partial(self._load, found=found, order=order)
                )
        return found

    async def look(self, keys: Sequence[Key]) -> dict[Key, V]:
        """Return what the tiers have, and keep it in memory."""
        with self.fences.hold() as fence:
            return self._take(await self._ask(keys, (), storing=False), fence)

    def life(self, ttl: float | None) -> float:
        """Return how long a value is to live: jitter takes a part of it."""
        return (ttl or self._policy.ttl) * (1 - self._policy.jitter * random())  # noqa: S311 -- no secret

    async def _load(
        self, keys: Sequence[Key], found: dict[Key, V], order: Order[V], flight: Flight[V] | None = None
    ) -> None:
        """Add to `found` what the tiers have, and load the rest; callers of a given flight may take stand-ins."""
        with self.fences.hold() as fence:
            missing = await self._look(keys, found, fence, order)
            if not missing:
                return
            if flight is not None:
                self._note(flight, missing)
                self._let_stand_in(flight, missing, found, fence)
            try:
                values = await self._call(order, list(missing))
            except Exception as error:  # noqa: BLE001 -- whatever a factory raises
                found |= self._make_do(error, missing, fence, order)
            else:
                loaded = {key: values[key] for key in missing if key in values}
                await self._keep_loaded(loaded, missing, fence, order)
                found |= loaded

    async def _look(
        self, keys: Sequence[Key], found: dict[Key, V], fence: Fence, order: Order[V]
    ) -> Mapping[Key, Look[V]]:
        """Add to `found` what the tiers have, and return what the look gave for the other keys."""
        looks = await self._ask(keys, order.tags, storing=True)
        found |= self._take(looks, fence, order)
        return {key: looks[key] for key in keys if key not in found}

    @staticmethod
    def _note(flight: Flight[V], missing: Mapping[Key, Look[V]]) -> None:
        """Note what the load has seen, for callers that may have missed a change since."""
        flight.seen |= {key: look.seen for key, look in missing.items() if look.seen is not None}

    def _let_stand_in(
        self, flight: Flight[V], missing: Mapping[Key, Look[V]], found: Mapping[Key, V], fence: Fence
    ) -> None:
        def stand_ins() -> Mapping[Key, V] | None:
            older = self._stand_ins({key: look for key, look in missing.items() if key not in found}, fence)
            return None if older is None else {**older, **found}

        flight.stand_ins = stand_ins

    async def _ask(self, keys: Sequence[Key], tags: tuple[str, ...], *, storing: bool) -> Mapping[Key, Look[V]]:
        """Look into Redis, or into memory where there is no Redis to ask, or where it may hold what is no more."""
        self._l1_misses.count += len(keys)
        if not self._shared.stores:
            return {key: self._look_inside(key, trusted=self._shared.away) for key in keys}
        doubts = self._changes.doubts if self._changes.waiting else None  # hardly ever
        certain = keys if doubts is None else [key for key in keys if not doubts(key)]
        gone = self._shared.away
        try:
            looks = dict(await self._shared.read(certain, tags, storing=storing)) if certain else {}
        except CacheUnavailable:
            if self._strict:
                raise
            looks, gone = {}, self._shared.away  # a server that answers, and refuses, is not gone
        if self._changes.waiting:  # looked at again: some may have come meanwhile
            looks = {key: look for key, look in looks.items() if not self._changes.doubts(key, look.tags)}
        hits = sum([look.value is not MISSING for look in looks.values()])
        self._l2["hit"].count += hits
        self._l2["miss"].count += len(looks) - hits
        for key in keys:
            if key not in looks:
                looks[key] = self._look_inside(key, trusted=gone or self._channel.live)
        return looks

    def _look_inside(self, key: Key, *, trusted: bool) -> Look[V]:
        # Deaf, memory may hold what others have changed. With Redis gone there is nothing better.
        value = self._memory.value(key) if trusted else MISSING
        if value is not MISSING:
            self._l1_stale.count += 1
        return Look(value)

    def _take(self, looks: Mapping[Key, Look[V]], fence: Fence, order: Order[V] | None = None) -> dict[Key, V]:
        """Return the fresh values of a look, and keep them in memory."""
        ahead = self._policy.refresh_ahead if order is not None and order.ahead else None
        found: dict[Key, V] = {}
        for key, look in looks.items():
            if look.value is MISSING or (ahead is not None and look.left <= look.life * (1 - ahead)):
                continue
            found[key] = look.value
            if look.left and self._memory.keeps and self._whole(fence, key):
                self._memory.keep(key, look.value, look.left, life=look.life, tags=look.tags)
        return found

    def _whole(self, fence: Fence, key: Key) -> bool:
        whole = fence.whole(key)
        if not whole:
            self._fenced.count += 1
        return whole

    async def _call(self, order: Order[V], keys: Sequence[Key]) -> Mapping[Key, V]:
        outcome, started = "error", monotonic()
        factory = asyncio.ensure_future(order.factory(keys))
        try:
            # Not by `asyncio.timeout`: that waits for a factory to obey its cancellation, and a driver may take long.
            if not (await asyncio.wait({factory}, timeout=self._policy.hard_timeout))[0]:
                outcome = "timeout"
                raise LoadTimeout(f"a load of the cache {self._name!r} took over {self._policy.hard_timeout:g} s")
            values = factory.result()
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            factory.cancel()
            await asyncio.wait({factory}, timeout=self._policy.hard_timeout)  # nobody waits for this but the end
            raise
        finally:
            if not factory.done():
                self._leave_behind(factory)
            self._loads[outcome].count += 1
            self._load_seconds(monotonic() - started)
        return values

    def _leave_behind(self, factory: "asyncio.Future[Mapping[Key, V]]") -> None:
        """Cancel what nobody waits for any longer; what it still says is heard by nobody."""
        factory.cancel()
        self._left_behind.add(factory)
        factory.add_done_callback(self._forget)

    def _forget(self, factory: "asyncio.Future[Mapping[Key, V]]") -> None:
        self._left_behind.discard(factory)
        if not factory.cancelled():
            factory.exception()  # looked at

    def _make_do(
        self, error: Exception, missing: Mapping[Key, Look[V]], fence: Fence, order: Order[V]
    ) -> Mapping[Key, V]:
        """Return what stands in for values that could not be loaded, or raise the error."""
        life = self._policy.negative_life(error)
        if life:
            key, *others = missing
            if not others and self._whole(fence, key):  # of several, nobody knows for which it stands
                self._memory.keep_error(key, error, life, tags=order.tags)
            raise error
        values = None if order.ahead else self._stand_ins(missing, fence)
        if values is None:
            raise error
        return values

    def _stand_ins(self, missing: Mapping[Key, Look[V]], fence: Fence) -> Mapping[Key, V] | None:
        """Serve older values for a moment, and return them if all keys have one; None when one has none."""
        found: dict[Key, V] = {}
        for key, look in missing.items():
            if not fence.stands(key):
                continue
            value = look.stand_in()
            if value is not MISSING and fence.whole(key):
                self._memory.keep_stale(key, value, look.stale_left, tags=look.tags)
            elif value is MISSING and not look.buried and (self._channel.live or self._shared.away):
                # Else it may have been deleted without this process learning of it.
                value = self._memory.stand_in(key)
                self._memory.revive(key)
            if value is not MISSING:
                found[key] = value
        if len(found) < len(missing):
            return None
        self._l2["stale"].count += len(found)
        return found

    async def _keep_loaded(
        self, loaded: Mapping[Key, V], missing: Mapping[Key, Look[V]], fence: Fence, order: Order[V]
    ) -> None:
        """Offer loaded values to Redis, and keep in memory those that it has not refused."""
        lives = {key: self.life(order.ttl) for key in loaded}
        sealed = {key: self._shared.seal(key, value, lives[key], order.tags) for key, value in loaded.items()}
        offered = {key: (sealed[key], missing[key].seen) for key in loaded if sealed[key].fits and missing[key].seen}
        changed: AbstractSet[Key] = set()
        if offered:
            try:
                changed = await self._shared.store(offered)
            except CacheUnavailable:
                if self._strict:
                    raise
        for key, value in loaded.items():
            # Not stored, for Redis was away or has lost what was seen: if the key has changed meanwhile, the fence has
            # been told of it, or what memory keeps is dropped once the channel has missed something.
            if key in changed:
                self._fenced.count += 1
            elif sealed[key].fits and self._whole(fence, key):
                self._memory.keep(key, value, lives[key], life=lives[key], tags=order.tags)

"""A model of Redis, of which each method is one atomic step, and processes that share it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any, NamedTuple, TypeVar

from tequipy_caching import CachePolicy, CacheUnavailable
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.local_store import Memory
from tequipy_caching.cache.recovery import RecoveryQueue
from tequipy_caching.cache.tiered import TieredCache
from tequipy_caching.cache.tiers import Change, Lookup, SharedTier
from tequipy_caching.testing import NullMetrics, TurnableClock

T = TypeVar("T")

KEYS = ["a"]
POLICY = CachePolicy(ttl=1000, jitter=0, hard_timeout=1000)
LOADS_WITHIN = 20
"""How long a load may take on the model's clock; tombstones are kept a little longer."""


class Stored(NamedTuple):
    """An entry in the model of Redis."""

    state: int
    value: int | None
    fresh_until: float
    until: float
    marks: tuple[int, ...]
    is_mark: bool = False


class Value(NamedTuple):
    """An encoded value of the model."""

    value: int
    ttl: float
    tags: tuple[str, ...]
    fits: bool = True


@dataclass
class Server:
    """The model of Redis; each method is one atomic step."""

    clock: TurnableClock
    values: dict[Key, Stored] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    inboxes: dict[int, list[Change]] = field(default_factory=dict)
    sequence: int = 0
    numbers: Iterable[int] = field(default_factory=count)

    def number(self) -> int:
        return next(iter(self.numbers))

    def mark(self, tags: Iterable[str]) -> tuple[int, ...]:
        return tuple(self.marks.setdefault(tag, self.number()) for tag in ("", *tags))

    def at(self, key: Key) -> Stored | None:
        stored = self.values.get(key)
        return stored if stored is not None and self.clock.seconds < stored.until else None

    def hold(self, key: Key) -> None:
        """Extend the ttl of an entry to the duration of a load, or write a mark."""
        stored, least = self.at(key), self.clock.seconds + LOADS_WITHIN + 1
        if stored is None:
            self.values[key] = Stored(self.number(), None, 0, least, (), is_mark=True)
        else:
            self.values[key] = stored._replace(until=max(stored.until, least))

    def put(self, key: Key, value: int | None, ttl: float, tags: Iterable[str] = ()) -> None:
        now = self.clock.seconds
        until = now + max(ttl, LOADS_WITHIN + 1)
        self.values[key] = Stored(self.number(), value, now + ttl, until, self.mark(tags))

    def read(self, key: Key, tags: Sequence[str], *, storing: bool = False) -> Lookup[int]:
        stored, seen = self.at(key), (self.mark(tags),)
        if storing and (stored is None or stored.value is None):
            self.hold(key)
            stored = self.at(key)
        if stored is None:
            return Lookup()
        if stored.is_mark:
            return Lookup(seen=(stored.state, *seen))
        fresh = stored.value is not None and self.clock.seconds < stored.fresh_until
        if not fresh or not set(stored.marks) <= set(self.marks.values()):
            return Lookup(seen=(stored.state, *seen), tombstoned=True)
        left = stored.fresh_until - self.clock.seconds
        return Lookup(stored.value, left, POLICY.ttl, seen=(stored.state, *seen))  # type: ignore[arg-type]  # -- fresh is no None

    def store(self, key: Key, encoded: Value, seen: Any) -> bool:
        """Store a value; return whether its key has changed. A value whose mark has vanished is not stored either."""
        state, marks = seen
        stored = self.at(key)
        if self.mark(encoded.tags) != marks:
            return True
        if stored is None or stored.state != state:
            return stored is not None
        self.put(key, encoded.value, encoded.ttl, encoded.tags)
        return False

    def publish(self, sender: int, change: Change) -> None:
        self.sequence += 1
        for process, inbox in self.inboxes.items():
            if process != sender:
                inbox.append(change)


class ModelTier(SharedTier[int]):
    """The access of one process to the model of Redis."""

    stores = True

    def __init__(self, server: Server, process: int, travel: Callable[[], Awaitable[None]]) -> None:
        self.gone = False
        self._server = server
        self._process = process
        self._travel = travel

    @property
    def unreachable(self) -> bool:
        return self.gone

    def encode(self, _: Key, value: int, ttl: float, tags: Sequence[str]) -> Value:
        return Value(value, ttl, tuple(tags))

    async def read(self, keys: Sequence[Key], tags: Sequence[str], *, storing: bool) -> Mapping[Key, Lookup[int]]:
        return await self._ask(lambda: {key: self._server.read(key, tags, storing=storing) for key in keys})

    async def changed(self, seen: Mapping[Key, Any]) -> AbstractSet[Key]:
        def has_changed(key: Key) -> bool:
            (state, marks), stored = seen[key], self._server.at(key)
            return stored is None or stored.state != state or not set(marks) <= set(self._server.marks.values())

        return await self._ask(lambda: {key for key in seen if has_changed(key)})

    async def store(self, loaded: Mapping[Key, tuple[Any, object]]) -> AbstractSet[Key]:
        return await self._ask(lambda: {key for key, offer in loaded.items() if self._server.store(key, *offer)})

    async def write(self, key: Key, encoded: Any) -> None:
        await self._change(
            lambda: self._server.put(key, encoded.value, encoded.ttl, encoded.tags), Change("delete", [key])
        )

    async def remove(self, keys: Sequence[Key]) -> None:
        def put_tombstones() -> None:
            for key in keys:
                self._server.put(key, None, 0)

        await self._change(put_tombstones, Change("delete", keys))

    async def expire(self, keys: Sequence[Key]) -> None:
        await self.remove(keys)

    async def remove_tags(self, tags: Sequence[str]) -> None:
        await self._change(lambda: [self._server.marks.pop(tag, None) for tag in tags], Change("tags", tags=tags))

    async def clear(self) -> None:
        await self._change(lambda: self._server.marks.pop("", None), Change("clear"))

    async def lock(self, keys: Sequence[Key], tags: Sequence[str], token: str, lease_ttl: float) -> Mapping[Key, float]:
        raise NotImplementedError

    async def unlock(self, keys: Sequence[Key], token: str) -> None:
        raise NotImplementedError

    async def _change(self, step: Callable[[], object], change: Change) -> None:
        def apply() -> None:
            step()
            self._server.publish(self._process, change)

        await self._ask(apply)

    async def _ask(self, step: Callable[[], T]) -> T:
        await self._travel()
        if self.gone:
            raise CacheUnavailable
        answer = step()
        await self._travel()
        if self.gone:  # executed, but the response is lost
            raise CacheUnavailable
        return answer


@dataclass
class Channel:
    live: bool = True
    heard: int = 0

    @property
    def live_until(self) -> float:
        return inf if self.live else -inf


class Process:
    """A cache with its own L1 and channel."""

    def __init__(self, number: int, server: Server, travel: Callable[[], Awaitable[None]]) -> None:
        self.shared = ModelTier(server, number, travel)
        self.channel = Channel()
        self.recovery = RecoveryQueue(lambda: None, limit=2)
        self.memory: Memory[int] = Memory(POLICY, {}, lambda: server.clock.seconds)
        self.cache: TieredCache[int] = TieredCache(
            "numbers",
            int,
            POLICY,
            memory=self.memory,
            shared=self.shared,
            channel=self.channel,
            recovery=self.recovery,
            lease_ttl=1,
            strict=False,
            metrics=NullMetrics(),
        )
        self.inbox = server.inboxes.setdefault(number, [])

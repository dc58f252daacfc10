"""A state machine (hypothesis) over all orders of loads, changes, messages, disconnections and outages.

Two processes share a model of Redis. Each request, response and message is in transit until a rule lets it arrive, and
the clock advances only by a rule.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tequipy_caching import MISSING, CachePolicy, CacheUnavailable
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.local_store import Memory
from tequipy_caching.cache.recovery import RecoveryQueue
from tequipy_caching.cache.tiered import TieredCache
from tequipy_caching.cache.tiers import Change, Lookup, SharedTier
from tequipy_caching.testing import NullMetrics, TurnableClock

T = TypeVar("T")

KEYS = ["a"]
TAG = "team"
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


PROCESSES = st.integers(0, 1)
NAMES = st.sampled_from(KEYS)


class Race(RuleBasedStateMachine):
    """In any order of steps: at the end, no process holds an invalidated value."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = TurnableClock()
        self.server = Server(self.clock)
        self.travelling: list[asyncio.Future[None]] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.truth = dict.fromkeys(KEYS, 0)
        self.writing: set[str] = set()
        self.processes = [Process(number, self.server, self.travel) for number in range(2)]

    async def travel(self) -> None:
        """Wait until a rule lets the request arrive."""
        arrival = self.loop.create_future()
        self.travelling.append(arrival)
        await arrival

    @rule(process=PROCESSES, key=NAMES, tagged=st.booleans())
    def load(self, process: int, key: str, *, tagged: bool) -> None:
        """Start to read a key, and to load it if it is missing."""

        async def factory() -> int:
            value = self.truth[key]
            await self.travel()
            return value

        tags = [TAG] if tagged else []
        self.spawn(self.processes[process].cache.get_or_set(key, factory, tags=tags))

    @rule(process=PROCESSES)
    def lookup(self, process: int) -> None:
        """Start to read all keys."""
        self.spawn(self.processes[process].cache.get_many(KEYS))

    @rule(process=PROCESSES, key=NAMES, kind=st.sampled_from(["delete", "set", "expire", "clear"]))
    def write(self, process: int, key: str, kind: str) -> None:
        """Commit a new version of a key, and start to invalidate it. As in a database, a key has one writer."""
        if key in self.writing:
            return
        self.writing.add(key)
        self.truth[key] += 1
        cache = self.processes[process].cache
        changes: dict[str, Coroutine[Any, Any, None]] = {}
        match kind:
            case "set":
                changes[kind] = cache.set(key, self.truth[key], tags=[TAG])
            case "clear":
                changes[kind] = cache.clear()
            case _:
                changes[kind] = getattr(cache, kind)(key)

        async def invalidate() -> None:
            await changes[kind]
            self.writing.discard(key)

        self.spawn(invalidate())

    @rule(process=PROCESSES)
    def delete_by_tag(self, process: int) -> None:
        """Start to delete a tag. This changes no version, and the remaining values must still be correct."""
        self.spawn(self.processes[process].cache.delete_by_tag(TAG))

    @precondition(lambda self: self.travelling)
    @rule(which=st.lists(st.integers(0, 2), min_size=1, max_size=4))
    def arrive(self, which: Sequence[int]) -> None:
        """Let some requests and responses arrive, preferably older ones."""
        for each in which:
            if self.travelling:
                self.travelling.pop(each % len(self.travelling)).set_result(None)
                self.settle()

    @precondition(lambda self: self.travelling)
    @rule()
    def let_all_arrive(self) -> None:
        """Let everything in transit arrive."""
        while self.travelling:
            self.arrive([0])

    @rule(process=PROCESSES)
    def deliver(self, process: int) -> None:
        """Let the next message arrive."""
        each = self.processes[process]
        if each.channel.live and each.inbox:
            each.cache.on_change(each.inbox.pop(0))
            self.settle()

    @rule(process=PROCESSES, redis_too=st.booleans())
    def break_off(self, process: int, *, redis_too: bool) -> None:
        """Cut a process's channel and lose its messages in transit, or disconnect the process from Redis."""
        each = self.processes[process]
        if each.channel.live:
            each.channel.live = False
            each.channel.heard = self.server.sequence - len(each.inbox)
        each.shared.gone |= redis_too

    @rule(process=PROCESSES)
    def come_back(self, process: int) -> None:
        """Reconnect, compare positions as the backplane does, and start to replay pending changes."""
        each = self.processes[process]
        each.shared.gone = False
        if not each.channel.live:
            each.inbox.clear()
            if each.channel.heard != self.server.sequence:
                each.cache.on_gap()
            each.channel.live = True
        if len(each.recovery):
            self.spawn(self.replay(each))

    @rule(seconds=st.sampled_from([1, 30]))
    def wait(self, seconds: int) -> None:
        """Advance the clock by less or more than the duration of a load."""
        self.clock.advance(seconds)

    @rule(which=st.sampled_from([*KEYS, TAG, ""]))
    def evict(self, which: str) -> None:
        """Remove a key, a tag or the cache's generation, as by eviction, UNLINK, or a clock step."""
        self.server.values.pop(which, None)
        self.server.marks.pop(which, None)

    async def replay(self, process: Process) -> None:
        with suppress(CacheUnavailable):
            await process.recovery.replay()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        self.settle()

    def settle(self) -> None:
        """Run the event loop until all tasks wait."""

        async def turns() -> None:
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def teardown(self) -> None:
        """Let everything arrive in order, and check what each process holds."""
        if not hasattr(self, "loop"):
            return
        for number in range(2):
            self.come_back(number)
        while self.travelling or any(each.inbox or len(each.recovery) for each in self.processes):
            if self.travelling:
                self.arrive([0])
            for number, each in enumerate(self.processes):
                self.deliver(number)
                if not self.travelling and len(each.recovery):
                    self.spawn(self.replay(each))
        for task in self.tasks:
            assert task.done()
            task.result()
        self.loop.close()
        for key in KEYS:
            held = [each.cache.peek(key) for each in self.processes]
            held.append(self.server.read(key, ()).value)
            assert all(value is MISSING or value == self.truth[key] for value in held), (key, held, self.truth)


TestRace = Race.TestCase
TestRace.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


class Marathon(Race):
    """The same test with more steps."""


TestMarathon = pytest.mark.prove(pytest.mark.timeout(900)(Marathon.TestCase))
TestMarathon.settings = settings(TestRace.settings, max_examples=5_000)

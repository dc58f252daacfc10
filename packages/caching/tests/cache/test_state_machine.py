"""A state machine (hypothesis) over all orders of loads, changes, messages, disconnections and outages.

Two processes share a model of Redis. Each request, response and message is in transit until a rule lets it arrive, and
the clock advances only by a rule.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tequipy_caching import MISSING, CacheUnavailable
from tequipy_caching.testing import TurnableClock

from .model import KEYS, Process, Server

TAG = "team"
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
TestRace.settings = settings(max_examples=200, stateful_step_count=40)


class Marathon(Race):
    """The same test with more steps."""


TestMarathon = pytest.mark.prove(pytest.mark.timeout(900)(Marathon.TestCase))
TestMarathon.settings = settings(TestRace.settings, max_examples=5_000)

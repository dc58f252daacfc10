"""A history of two processes: the operations in progress, their results, and the checks of them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from hypothesis.stateful import RuleBasedStateMachine

from tequipy_caching import MISSING, CacheError

from .redis_model import Snapshot
from .truth import Change, Truth
from .world import PREFIX, Process, World

KEYS: Final = ("a", "b")
SET_KEY: Final = f"{PREFIX}:set:revoked".encode()
FOREIGN: Final = "foreign"
"""A member of the set of another database."""
_CALM_WITHIN: Final = 70
"""Seconds after which all is well, once all faults have ended."""


class FactoryFailedError(Exception):
    """Raised by a factory when the machine lets it fail."""


@dataclass
class Load:
    """A running call of a factory."""

    process: Process
    done: "asyncio.Future[bool]"


class History(RuleBasedStateMachine):
    """The operations from which the rules of a machine are composed."""

    steps = 0
    histories = 0

    def start(self) -> None:
        """Start two processes."""
        type(self).histories += 1
        self.world = World()
        self.truth = Truth(self.world)
        self.truth.versions = dict.fromkeys(KEYS, 0)
        self.loads: list[Load] = []
        self.members: set[str] = set()
        self.writing: set[str] = set()
        self.faults: list[Callable[[], None]] = []
        """What ends each fault that there is."""
        self.snapshots: list[Snapshot] = [{}]
        """What Redis had after each step."""
        self._tasks: list[asyncio.Task[Any]] = []
        self.processes = [self.start_process(number) for number in range(2)]
        self.go_on()

    def start_process(self, number: int) -> Process:
        """Start a process."""
        process = self.world.start(number)
        self.truth.follow(process)
        return process

    def go_on(self, seconds: float = 0) -> None:
        """Run everything that a step causes, and raise the first broken promise."""
        self.truth.observe()
        self.world.wait(seconds)
        self.truth.observe()
        self.truth.next_moment()
        self.snapshots.append(self.world.server.snapshot())
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.remove(task)
            if not task.cancelled():
                task.result()

    def finish(self, load: Load, *, well: bool) -> None:
        """Let a factory return or fail."""
        if not load.done.done():  # it was not cancelled
            load.done.set_result(well)
        self.go_on()

    def disturbed(self, mend: Callable[[], None]) -> None:
        """Record a fault and how to end it."""
        self.faults.append(mend)
        self.go_on()

    def begin_read(self, process: Process, key: str, read: Callable[[], Awaitable[str | None]]) -> None:
        """Start a read of a key, and check its result."""

        async def read_one() -> Mapping[str, str]:
            value = await read()
            return {} if value is None else {key: value}

        self.begin_read_many(process, read_one)

    def begin_read_many(self, process: Process, read: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Start a read of several keys, and check its results."""
        called = self.truth.now

        async def check() -> None:
            began = self.truth.begin_read(process, called)
            with suppress(CacheError, FactoryFailedError):
                for key, value in (await read()).items():
                    self.truth.check(began, key, value)

        self._spawn(process, check())

    def begin_change(self, changes: Sequence[Change], change: Callable[[], Awaitable[None]]) -> None:
        """Start changes in one process, and record when they return."""
        began, process = self.truth.now, changes[0].process

        async def make() -> None:
            try:
                await change()
                for each in changes:
                    self.truth.note_return(each, began)
            finally:
                self.writing.difference_update(each.name for each in changes)

        self._spawn(process, make())

    def check_memory(self) -> None:
        """Check that no process would serve a forbidden value from L1, even if its event loop has not run for long."""
        type(self).steps += 1
        for process in self.processes:
            read = self.truth.begin_read(process, self.truth.now)
            for key in KEYS:
                value = process.cache.peek(key)
                if value is not MISSING:
                    self.truth.check(read, key, str(value))
            if process.revoked.live:
                for member in self.members:
                    if member not in process.revoked:
                        self.truth.check_member(process, member)
            self.truth.require(FOREIGN not in process.revoked, "a member of another database is in the set")
        stored = self.world.server.databases.get(0, {}).get(SET_KEY)
        written = stored is not None and FOREIGN.encode() in stored.value
        self.truth.require(not written, "a member of another database is written")

    def end_quietly(self) -> None:
        """End all faults, wait until all processes are well, and read everything, also in a new process."""
        while self.faults:
            self.faults.pop()()
        self.go_on(1)
        while self.loads:
            self.finish(self.loads.pop(), well=True)
        for _ in range(_CALM_WITHIN):
            if not self._tasks and all(process.is_well for process in self.processes):
                break
            self.go_on(1)
        self.processes.append(self.start_process(3))
        self.go_on(3)
        for process in self.processes:
            for key in KEYS:
                self.begin_read(process, key, partial(process.cache.get, key))
                self.check_memory()
            self.truth.require(process.is_well and process.revoked.live, f"process {process.number} does not recover")
        self.truth.require(not self._tasks, "a call does not end")

    def teardown(self) -> None:
        """Make the checks that are possible only at the end."""
        if not hasattr(self, "processes"):
            return
        try:
            if not self.truth.broken:
                self.end_quietly()
        finally:
            self.world.close()

    def _spawn(self, process: Process, work: Any) -> None:
        self._tasks.append(process.spawn(work))
        self.go_on()

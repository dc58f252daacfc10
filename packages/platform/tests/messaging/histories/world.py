"""A broker, an outbox, relays and workers of two releases, and what they promise once all faults have ended."""

import itertools
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from tequipy_platform.messaging.deliveries import Deliveries, Outcome, Stop
from tequipy_platform.messaging.relay import Relay
from tequipy_platform.testing import FrozenClock, MemoryMessage, MemoryMessages
from tequipy_platform.testing.message_log import MemoryMessageLog
from tequipy_platform.testing.unpublished import MemoryUnpublishedMessages

from .broker import VISIBILITY, Copy, ModelBroker, Queues
from .processes import Process, VirtualLoop, Way
from .releases import NEW_TASKS, Handlers, Release
from .stepped import SteppedLog, SteppedOutbox
from .truth import BrokenPromiseError, LogCapture, Truth

REDELIVERY: Final = timedelta(seconds=VISIBILITY)
_ROUNDS: Final = 120
"""Rounds after which everything is settled, once all faults have ended."""


@dataclass
class Running:
    """A process with its kind, release, and place."""

    process: Process
    kind: str
    release: Release
    deliveries: Deliveries | None = None
    relay: Relay | None = None
    goes_on: bool = True
    """False for a frozen process, which nobody has noticed yet."""

    @property
    def is_idle(self) -> bool:
        return self.process.waits_for == {"worker": "receive", "relay": "wait"}[self.kind]


class World:
    """The whole system; processes take one step at a time."""

    def __init__(self, releases: tuple[Release, Release]) -> None:
        self.loop = VirtualLoop()
        self.clock = FrozenClock()
        self.messages = MemoryMessages(self.clock)
        self.queues = Queues()
        self.releases = releases
        self.truth = Truth({task.name: task.retry for task in NEW_TASKS})
        self.database_up = True
        self.steps = 0
        self.committed: list[UUID] = []
        """The ids of all messages and events that the app has committed."""
        self.trace: list[str] = []
        self.capture = LogCapture(self.truth)
        logger = logging.getLogger("tequipy_platform")
        logger.addHandler(self.capture)
        self._logger_was = logger.propagate, logger.level
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        self._process_ids = itertools.count(1)
        self.processes: list[Running] = []
        for kind in ("relay", "worker", "worker", "relay"):
            self.processes.append(self.start(kind, releases[0]))

    def close(self) -> None:
        """End all processes."""
        logger = logging.getLogger("tequipy_platform")
        logger.removeHandler(self.capture)
        logger.propagate, level = self._logger_was
        logger.setLevel(level)
        for running in self.processes:
            with suppress(Exception):  # it was reported when it happened
                running.process.end()
        self.loop.close()

    def start(self, kind: str, release: Release) -> Running:
        process = Process(f"{kind} {release.version}", self.loop, is_reachable=self._is_reachable)
        running = Running(process, kind, release)
        if kind == "relay":
            outbox = MemoryUnpublishedMessages(
                self.messages, redelivery=REDELIVERY, queues=release.queues, app_version=release.version
            )
            broker = ModelBroker(process, self.queues, release.queues)
            running.relay = Relay(broker, SteppedOutbox(process, outbox), release.tasks)
            process.start(running.relay.run())
        else:
            log = MemoryMessageLog(self.messages, redelivery=REDELIVERY)
            stepped = SteppedLog(process, log, self.messages, self.truth, release.schema)
            handlers = Handlers(process, release, self.messages, self.truth).all()
            running.deliveries = Deliveries(handlers, stepped, jitter=lambda most: most / 2)
            running.deliveries._worker = f"host:{next(self._process_ids)}"
            process.start(self._work(process, release, running.deliveries))
        return running

    async def _work(self, process: Process, release: Release, deliveries: Deliveries) -> None:
        """Receive and handle message after message, as a child of Celery does."""
        queues = sorted(set(release.queues.values()))
        while True:
            await process.turn("receive")
            copy = self.queues.receive(process, queues)
            if copy is None:
                continue
            earlier = len(self.truth.runs.get(copy.message_id, [])) if copy.message_id else 0
            if copy.message_id is None:
                outcome = await deliveries.handle_foreign("foreign", queue=copy.queue)
            else:
                outcome = await deliveries.handle(copy.message_id, queue=copy.queue, redelivered=copy.redelivered)
            self._check_outcome(process, copy, outcome, earlier)
            await process.turn("acknowledge")
            if outcome is Outcome.RETURNED:
                self.queues.give_back(process, copy)
            else:
                self.queues.acknowledge(copy)

    def _check_outcome(self, process: Process, copy: Copy, outcome: Outcome, earlier: int) -> None:
        if outcome is Outcome.RETURNED or copy.message_id is None:
            return
        for run in self.truth.runs.get(copy.message_id, [])[earlier:]:
            if run.process is process and run.known and not run.ended:
                self.truth.report(f"attempt {run.number} at {copy.message_id} ends without an outcome")

    def _is_reachable(self, step: str) -> bool:
        return self.queues.up if step == "publish" else self.database_up

    def resume(self, running: Running, way: Way = Way.GO) -> None:
        """Let a process take its next step; a process that dies is started again."""
        process = running.process
        self.steps += 1
        self.trace.append(f"{process.name}: {process.waits_for} {way.name}")
        process.resume(way)
        for each in list(self.processes):  # a process that waited for a lock of this one may have died
            if not each.process.alive:
                self.replace(each, each.release, whole=way is Way.KILL_AFTER)
        self.truth.check_effects()
        self.truth.raise_reported()

    def replace(self, running: Running, release: Release, *, whole: bool = False) -> None:
        """Start a process in the place of one that has ended; a dead child's messages return at once."""
        running.process.end()
        if not whole:
            self.queues.give_back(running.process)
        self.processes[self.processes.index(running)] = self.start(running.kind, release)

    def send(self, task: str, payload: Mapping[str, Any], release: Release, *, schema: int = 1, delay: int = 0) -> UUID:
        """Commit one message."""
        not_before = self.clock.now() + timedelta(seconds=delay) if delay else None
        row = self.messages.add(
            payload, task=task, not_before=not_before, producer_version=release.version, schema_version=schema
        )
        self.committed.append(row.id)
        return row.id

    def publish(self, event: str, release: Release, *, schema: int = 1) -> UUID:
        """Commit one event."""
        row = self.messages.add({"word": "x"}, event=event, producer_version=release.version, schema_version=schema)
        self.committed.append(row.id)
        return row.id

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        self.queues.now += seconds
        self.queues.restore()

    def work(self, rounds: int = 200) -> None:
        """Let every process that has work take that many steps, or less if nobody has work before."""
        for _ in range(rounds):
            busy = [running for running in self.processes if running.goes_on and not self._is_at_rest(running)]
            if not busy:
                break
            for running in busy:
                if running in self.processes and running.process.waits_for is not None:
                    self.resume(running)
        self.wake_relays()

    def wake_relays(self) -> None:
        """Let idle relays look for messages."""
        for running in list(self.processes):
            if running.kind == "relay" and running.is_idle and running.goes_on:
                self.resume(running)

    def interrupt(self, running: Running, stop: Stop) -> None:
        """Interrupt the delivery of a worker, as its signal handlers do."""
        if running.deliveries is not None:
            self.trace.append(f"{running.process.name}: {stop.name}")
            self.loop.call_soon(running.deliveries.interrupt, stop)
            self.loop.run_forever()

    def _is_at_rest(self, running: Running) -> bool:
        if not running.is_idle:
            return False
        return running.kind == "relay" or self.queues.next_of(sorted(set(running.release.queues.values()))) is None

    def settle(self) -> None:
        """End all faults but refusals, deploy the new release everywhere, and let time run on."""
        self.database_up = self.queues.up = True
        self.queues.full = False
        for copy in self.queues.late:
            self.queues.put(copy)
        self.queues.late.clear()
        for running in self.processes:
            running.goes_on = True
        self.work()
        for running in list(self.processes):
            self.replace(running, self.releases[1])
        unsettled: list[MemoryMessage] = []
        for number in range(_ROUNDS):
            self.work(60)
            unsettled = [row for row in self.messages.rows.values() if row.settled_at is None]
            if not unsettled and self.queues.next_of(self.queues.waiting) is None:
                return
            # Later rounds are longer, because a message from a time when the clock was ahead may wait until then.
            self.pass_time(max(self._next_time(unsettled), 20 * number))
        names = ", ".join(f"{row.id} ({row.task or row.event}, {row.state})" for row in unsettled)
        raise BrokenPromiseError(f"unsettled for ever: {names}")

    def _next_time(self, rows: list[MemoryMessage]) -> float:
        """Return the seconds until something is due."""
        now = self.clock.now()
        times = [(time - now).total_seconds() for row in rows for time in (row.not_before, row.redeliver_at) if time]
        times += [deadline - self.queues.now for _, _, deadline in self.queues.unacknowledged]
        return min((seconds for seconds in times if seconds > 0), default=31.0)

"""The rules of the histories, as a state machine of hypothesis."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tequipy_platform.messaging.deliveries import Stop

from .broker import Copy
from .checks import check
from .processes import Way
from .releases import releases
from .world import Running, World

VERSIONS = (("1.0", "2.0"), ("1.9", "1.10"), ("4f2ae", "e7b0c"))
OLD_MESSAGES: Sequence[tuple[str, dict[str, Any]]] = (
    *[("test.note", {"word": "x"})] * 3,
    *[("test.mail", {})] * 2,
    *[("test.flaky", {"times": 2})] * 2,
    *[("test.chain", {})] * 2,
    *[("test.broken", {})] * 2,
    ("test.kill", {}),
)
NEW_MESSAGES: Sequence[tuple[str, dict[str, Any]]] = (
    *[("test.note", {"word": "x", "extra": "y"})] * 3,
    *[("test.fresh", {"word": "x"})] * 3,
    *OLD_MESSAGES,
)
DISTURBED = [way for way in Way if way is not Way.GO]
CLOCK_STEPS = (-100_000, -4000, -30, 30, 4000, 100_000)
COPIES = ["lose", "double", "delay", "deliver", "redeliver", "redeliver", "publish", "publish"]
PLACES = st.integers(0, 3)


class Histories(RuleBasedStateMachine):
    """Messages, steps of processes, faults and deploys in any order."""

    histories = 0
    steps = 0
    ends: ClassVar[Counter[str]]
    """The number of messages by the state in which they ended."""
    traces: ClassVar[list[Sequence[str]]]
    """The steps of the histories."""

    @initialize(versions=st.sampled_from(VERSIONS))
    def begin(self, versions: tuple[str, str]) -> None:
        type(self).histories += 1
        self.world = World(releases(versions))

    @rule(number=st.integers(0, len(OLD_MESSAGES) - 1), delay=st.sampled_from([0, 0, 0, 90]), times=st.integers(1, 3))
    def send(self, number: int, delay: int, times: int) -> None:
        task, payload = OLD_MESSAGES[number]
        for _ in range(times):
            self.world.send(task, payload, self.world.releases[0], delay=delay)

    @rule(number=st.integers(0, len(NEW_MESSAGES) - 1), schema=st.sampled_from([1, 1, 2]))
    def send_new(self, number: int, schema: int) -> None:
        task, payload = NEW_MESSAGES[number]
        self.world.send(task, payload, self.world.releases[1], schema=schema)

    @rule(event=st.sampled_from(["noted", "renewed", "unheard"]), new=st.booleans())
    def publish(self, event: str, new: bool) -> None:
        self.world.publish(event, self.world.releases[new])

    @rule(rounds=st.integers(1, 12))
    def work(self, rounds: int) -> None:
        """Let every process that has work take some steps."""
        self.world.work(rounds)

    @rule(rounds=st.integers(1, 40), seconds=st.sampled_from([1, 5, 31, 70, 601]))
    def work_and_wait(self, rounds: int, seconds: int) -> None:
        self.world.work(rounds)
        self.world.pass_time(seconds)

    @rule(place=PLACES, steps=st.integers(1, 6))
    def go(self, place: int, steps: int) -> None:
        for _ in range(steps):
            self._resume(self.world.processes[place])

    @rule(number=st.integers(0, 3), way=st.sampled_from(DISTURBED), rounds=st.integers(0, 6))
    def disturb(self, number: int, way: Way, rounds: int) -> None:
        """Disturb the step of a process that is at work."""
        self.world.work(rounds)
        busy = [running for running in self.world.processes if not running.is_idle]
        if busy:
            self._resume(busy[number % len(busy)], way)

    @rule(place=PLACES, frozen=st.booleans(), rounds=st.integers(0, 6))
    def freeze(self, place: int, frozen: bool, rounds: int) -> None:
        """Freeze a process wherever it is, or thaw it."""
        self.world.work(rounds)
        self.world.processes[place].goes_on = not frozen

    @rule(number=st.integers(0, 3), stop=st.sampled_from(list(Stop)), rounds=st.integers(0, 6))
    def interrupt(self, number: int, stop: Stop, rounds: int) -> None:
        """Interrupt a worker at work, by its time limit or because it has to stop."""
        self.world.work(rounds)
        busy = [each for each in self.world.processes if each.deliveries is not None and not each.is_idle]
        if busy:
            self.world.interrupt(busy[number % len(busy)], stop)

    @rule(seconds=st.sampled_from([1, 31, 70, 601, 1300, 3700]))
    def wait(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @rule(number=st.integers(0, 9), how=st.sampled_from(COPIES))
    def disturb_copy(self, number: int, how: str) -> None:
        """Lose, double or delay a message, deliver it again while it is handled, or publish it without a record."""
        queues = self.world.queues
        copies = queues.copies()
        if how == "publish":
            rows = [row for row in self.world.messages.rows.values() if row.task and row.settled_at is None]
            if rows:
                row = rows[number % len(rows)]
                queues.put(Copy(row.id, row.queue or "default"))
        elif how == "redeliver":
            if queues.unacknowledged:
                queues.give_back(*queues.unacknowledged[number % len(queues.unacknowledged)][:2])
        elif how == "deliver":
            if queues.late:
                queues.put(queues.late.pop(0))
        elif copies:
            copy = copies[number % len(copies)]
            if how == "double":
                queues.put(Copy(copy.message_id, copy.queue, redelivered=copy.redelivered))
                return
            queues.lose(copy)
            if how == "delay":
                queues.late.append(copy)

    @rule(what=st.sampled_from(["up", "up", "database", "broker", "full"]))
    def outage(self, what: str) -> None:
        self.world.database_up = what != "database"
        self.world.queues.up = what != "broker"
        self.world.queues.full = what == "full"

    @rule(place=PLACES, new=st.booleans(), graceful=st.booleans())
    def deploy(self, place: int, new: bool, graceful: bool) -> None:
        """Replace a process by one of either release, so that a release is rolled back too."""
        running = self.world.processes[place]
        if graceful:
            self._stop(running)
        if running in self.world.processes and (running.is_idle or not graceful):
            self.world.replace(running, self.world.releases[new], whole=not graceful)

    @rule(what=st.sampled_from(["foreign", "refuse", "empty", "step"]), number=st.integers(0, 5))
    def rare(self, what: str, number: int) -> None:
        """A foreign body, a message that the broker refuses from now on, an empty broker, or a clock step."""
        if what == "foreign":
            self.world.queues.put(Copy(None, "default"))
        elif what == "empty":
            self.world.queues.empty()
        elif what == "step":
            self.world.truth.clock_stepped = True
            self.world.clock.advance(timedelta(seconds=CLOCK_STEPS[number]))
        else:
            tasks = [row.id for row in self.world.messages.rows.values() if row.task and row.settled_at is None]
            if tasks:
                self.world.queues.refused.add(tasks[number % len(tasks)])

    def _stop(self, running: Running) -> None:
        """Let a process end as on SIGTERM."""
        if running.deliveries is not None and not running.is_idle:
            self.world.interrupt(running, Stop.SHUTDOWN)
        for _ in range(10):
            if running in self.world.processes and not running.is_idle:
                self._resume(running)

    def _resume(self, running: Running, way: Way = Way.GO) -> None:
        if running.process.waits_for is not None:
            self.world.resume(running, way)

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        try:
            if not world.truth.broken:
                world.settle()
                check(world)
        finally:
            cls = type(self)
            cls.steps += world.steps
            cls.ends.update(str(row.state) for row in world.messages.rows.values() if row.task)
            cls.traces.append(world.trace)
            world.close()

"""Occurrences of scheduled tasks, expected and done, with real schedulers, relay and worker, which are killed."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tequipy_devstack.proving import Program, eventually
from tequipy_devstack.servers import PostgresServer

PROGRAM = Path(__file__).with_name("schedule_program.py")
PERIODS = {"schedule.often": 3, "schedule.seldom": 10}
Times = dict[str, list[int]]
"""The times of occurrences of each task, in seconds since 1970."""

pytestmark = pytest.mark.timeout(400)


@dataclass
class Stack:
    """Relay and worker that run, and schedulers that a test starts."""

    folder: Path
    environment: dict[str, str]
    postgres: PostgresServer
    database: str
    entered: ExitStack

    def start(self, role: str, name: str) -> Program:
        log = self.folder / f"{name}.log"
        return self.entered.enter_context(Program([sys.executable, PROGRAM, role], self.environment, log))

    def rows(self, query: str) -> list[list[str]]:
        return [row.split("|") for row in self.postgres.execute(query, database=self.database).splitlines()]

    def now(self) -> float:
        """Return the time of the database's clock."""
        return float(self.rows("select extract(epoch from now())")[0][0])

    def sent(self) -> Times:
        """Return the occurrences that became messages, in order."""
        return self._times("platform.outbox")

    def done(self, until: float) -> Times:
        """Return the occurrences that had their effect, in order: those that are not after `until`."""
        times = self._times("platform.outbox join platform.inbox on message_id = id")
        return {task: [occurrence for occurrence in found if occurrence <= until] for task, found in times.items()}

    def _times(self, source: str) -> Times:
        rows = self.rows(f"select task, extract(epoch from not_before)::bigint from {source}")  # noqa: S608 -- as above
        return {task: sorted(int(time) for name, time in rows if name == task) for task in PERIODS}

    def expected(self, until: float) -> Times:
        """Return all occurrences since the first one that was sent."""
        return {task: list(range(found[0], int(until) + 1, PERIODS[task])) for task, found in self.sent().items()}

    def settle(self) -> tuple[Times, Times]:
        """Return the occurrences until now that are expected and done, as soon as a scheduler has seen the last one."""
        now = self.now()
        wanted = self.expected(now)
        eventually("the last are sent", lambda: all(self.sent()[task][-1] >= wanted[task][-1] for task in PERIODS))
        unsettled = "select count(*) from platform.outbox where state <> 'done'"
        eventually("all messages are done", lambda: self.rows(unsettled) == [["0"]])
        return wanted, self.done(now)


@pytest.fixture
def stack(
    environment: dict[str, str], redis_url: str, postgres_server: PostgresServer, database_url: str, tmp_path: Path
) -> Iterator[Stack]:
    environment |= {"TEQUIPY_CELERY__BROKER_URL": redis_url}
    database = database_url.rpartition("/")[2].partition("?")[0]
    with ExitStack() as entered:
        running = Stack(tmp_path, environment, postgres_server, database, entered)
        running.start("relay", "relay")
        running.start("run", "run")
        yield running


def await_time(moment: float) -> None:
    eventually("the time has come", lambda: time.monotonic() >= moment, within=300)


def report(what: str, wanted: Times, found: Times) -> None:
    for task, times in wanted.items():
        lost, doubled = len(set(times) - set(found[task])), len(found[task]) - len(set(found[task]))
        print(
            f"{what}: every {PERIODS[task]:2} s: {len(times)} occurrences expected, {len(found[task])} done, "
            f"{lost} lost, {doubled} doubled"
        )


@pytest.mark.prove
@pytest.mark.parametrize(
    ("seconds", "kills"), [pytest.param(20, 1, id="short", marks=pytest.mark.quick), pytest.param(120, 8, id="long")]
)
def test_two_schedulers_of_which_one_is_killed(stack: Stack, seconds: int, kills: int) -> None:
    """Each occurrence is done exactly once while two schedulers run, and now one, now the other is killed."""
    beats = [stack.start("beat", f"beat-{number}") for number in range(2)]
    eventually("both tasks are sent", lambda: all(stack.sent().values()))
    began = time.monotonic()
    for number in range(1, kills + 1):
        await_time(began + number * seconds / (kills + 1))
        victim = beats[number % 2]
        victim.kill()
        if number < kills:  # the last one stays away
            victim.start()
    await_time(began + seconds)
    wanted, found = stack.settle()
    report(f"two schedulers for {seconds} s, {kills} kills", wanted, found)
    assert found == wanted


@pytest.mark.prove
def test_a_scheduler_that_is_killed_every_8_seconds(stack: Stack) -> None:
    """A scheduler that is killed every 8 s, and keeps no files, runs a task of 10 s at each of its occurrences."""
    beat = stack.start("beat", "beat")
    eventually("both tasks are sent", lambda: all(stack.sent().values()))
    for _ in range(6):
        await_time(time.monotonic() + 8)
        beat.kill()
        beat.start()
    wanted, found = stack.settle()
    seldom = "schedule.seldom"
    report("killed every 8 s", {seldom: wanted[seldom]}, found)
    assert found[seldom] == wanted[seldom]


def test_occurrences_are_done_through_relay_and_worker(stack: Stack) -> None:
    """With two schedulers, each occurrence is published and handled once."""
    for number in range(2):
        stack.start("beat", f"beat-{number}")
    eventually("both tasks are sent", lambda: all(stack.sent().values()))
    wanted, found = stack.settle()
    assert found == wanted

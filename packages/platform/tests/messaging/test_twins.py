"""The fakes of message log and relay's outbox do what PostgreSQL does, in random sequences of steps."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete

from tequipy_platform import Attempt, NotFound
from tequipy_platform.database import Database
from tequipy_platform.messaging.models import OutboxRow

from .twins import MemoryTwin, Row, SqlTwin, Twin, unknown_id

STEPS = 40
TIMES = (
    "not_before",
    "published_at",
    "redeliver_at",
    "failing_since",
    "waiting_since",
    "started_at",
    "settled_at",
)  # fmt: skip
COUNTS = (
    "task",
    "event",
    "state",
    "queue",
    "publications",
    "attempts",
    "failed_attempts",
    "deaths",
    "error",
    "worker",
    "producer_version",
)  # fmt: skip
SUBSCRIBERS: Sequence[dict[str, list[str]]] = ({}, {"test.done": ["test.do"]}, {"test.done": ["test.do", "test.mail"]})
Step = tuple[str, Any]


class Pair:
    """Both twins, which take the same steps at the same times."""

    def __init__(self, database: Database) -> None:
        self.real, self.fake = SqlTwin(database), MemoryTwin()
        self.attempts: list[tuple[Attempt, Attempt]] = []
        self._synchronized: datetime | None = None

    async def synchronize(self) -> None:
        """Let as much time pass in the fake as has passed in PostgreSQL."""
        now = await self.real.now()
        self.fake.clock.advance(now - (self._synchronized or now))
        self._synchronized = now
        self.real.relay._looked_at = -1000.0

    async def take(self, name: str, dice: random.Random) -> Step:
        """Take one step, compare the answers, and return the step."""
        ids = sorted(self.fake.messages.rows, key=str)
        argument: Any = None
        if name in {"add", "event"}:
            argument = await self._add(name, dice)
        elif name == "fan_out":
            argument = dice.choice(("1.0", "2.0", "abc")), dice.choice(SUBSCRIBERS)
            await self._fan_out(*argument)
        elif name == "publish":
            argument = {row_id: "no" for row_id in ids if dice.random() < 0.1}
            limit = dice.choice((2, 100))
            assert await self.real.publish(refuse=argument, limit=limit) == await self.fake.publish(
                refuse=argument, limit=limit
            )
        elif name == "begin":
            how = {"redelivered": dice.random() < 0.5, "repeated": dice.random() < 0.2}
            argument = dice.choice([*ids, unknown_id()]), dice.choice(("host:1", "host:2")), how
            await self._begin(*argument)
        elif name == "advance":
            argument = timedelta(seconds=dice.choice((3, 37, 151, 607, 1301, 3607)))
            await self.real.advance(argument)
            await self.fake.advance(argument)
        elif name == "reset":
            for twin in (self.real, self.fake):
                await twin.reset_future_times()
        elif self.attempts:
            argument = dice.randrange(len(self.attempts))
            real, fake = self.attempts[argument]
            await _end(self.real, real, name)
            await _end(self.fake, fake, name)
        return name, argument

    async def _add(self, name: str, dice: random.Random) -> dict[str, Any]:
        columns: dict[str, Any] = {"producer_version": dice.choice((None, "1.0", "2.0", "xyz"))}
        task = dice.choice(("test.do", "test.mail", "test.unknown")) if name == "add" else None
        if task is None:
            columns["event"] = "test.done"
        row_id = await self.real.add(task, **columns)
        self.fake.messages._new_id = lambda: row_id
        await self.fake.add(task, **columns)
        return columns | {"task": task}

    async def _fan_out(self, version: str, subscribers: dict[str, list[str]]) -> None:
        for twin in (self.real, self.fake):
            twin.release(version)
        assert await self.real.relay.fan_out(subscribers, 100) == await self.fake.relay.fan_out(subscribers, 100)

    async def _begin(self, row_id: UUID, worker: str, how: dict[str, bool]) -> None:
        answers: list[Attempt | str | None] = []
        for twin in (self.real, self.fake):
            try:
                answers.append(await twin.log.begin(row_id, worker, **how))
            except NotFound:
                answers.append("not found")
        real, fake = answers
        if isinstance(real, Attempt) and isinstance(fake, Attempt):
            self.attempts.append((real, fake))
            names = ("number", "task", "failed_attempts", "deaths", "after_death")
            assert [getattr(real, each) for each in names] == [getattr(fake, each) for each in names]
        else:
            assert real == fake

    async def differences(self) -> list[str]:
        """Return the columns in which the rows differ; times may differ by the duration of a step."""
        real, fake = await self.real.rows(), await self.fake.rows()
        offset = await self.real.now() - self.fake.clock.now()
        found = [f"{len(real)} rows, {len(fake)} rows"] if len(real) != len(fake) else []
        for one, other in zip(real, fake, strict=False):
            found += [
                f"{column} of {one.task or one.event}: {getattr(one, column)}, {getattr(other, column)}"
                for column in (*COUNTS, *TIMES)
                if not _equal(one, other, column, offset)
            ]
            if await self.real.failures(one.id) != await self.fake.failures(other.id):
                found.append(f"failures of {one.task}")
        return found


def _equal(real: Row, fake: Row, column: str, offset: timedelta) -> bool:
    one, other = getattr(real, column), getattr(fake, column)
    if column not in TIMES or one is None or other is None:
        return bool(one == other)
    return bool(abs(one - other - offset) < timedelta(seconds=5))


async def _end(twin: Twin, attempt: Attempt, outcome: str) -> None:
    if outcome == "succeed":
        await twin.log.succeed(attempt)
    elif outcome == "retry":
        await twin.log.fail(attempt, "Error: no", retry_in=timedelta(seconds=30))
    elif outcome == "fail":
        await twin.log.fail(attempt, "Error: never", retry_in=None)
    elif outcome == "postpone":
        await twin.log.postpone(attempt, timedelta(seconds=50))
    elif outcome == "wait":
        await twin.log.wait_for_release(attempt, "no task")
    else:
        await twin.log.hand_back(attempt)


NAMES = (
    *["add", "publish", "begin"] * 3,
    *["advance"] * 3,
    *["event", "fan_out"] * 2,
    *["succeed", "retry", "fail", "postpone", "wait", "hand_back", "reset"],
)


async def compare(database: Database, sequences: int) -> None:
    """Take random sequences of steps, and compare all rows after each step."""
    dice = random.Random(random.random())  # noqa: S311 -- no secret; repeats with pytest-randomly's seed
    for _ in range(sequences):
        async with database.sessions.begin() as session:
            await session.execute(delete(OutboxRow))
        pair, steps = Pair(database), list[Step]()
        for _ in range(STEPS):
            await pair.synchronize()
            steps.append(await pair.take(dice.choice(NAMES), dice))
            assert await pair.differences() == [], steps


async def test_the_fake_does_what_postgres_does(database: Database) -> None:
    """After each step of a random sequence the rows of both are equal, and so are all answers."""
    await compare(database, 3)


@pytest.mark.prove
@pytest.mark.timeout(1200)
async def test_the_fake_does_what_postgres_does_in_many_sequences(database: Database) -> None:
    """The same test with 100 sequences of 40 steps."""
    await compare(database, 100)

"""Idempotency keys: one contract suite for PostgreSQL and the fake, and tests of races and deaths on PostgreSQL."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tequipy_platform import (
    JSON,
    Delivery,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    IdempotentRequest,
    PayloadRefused,
    UnitOfWork,
)
from tequipy_platform.database import Database
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log
from tequipy_platform.tasks import TASKS, build_handlers
from tequipy_platform.testing import CountingIds, FrozenClock, MemoryUnitOfWork

from .killed_request import EFFECT

HOUR = timedelta(hours=1)
CALLER: Final = "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"
REQUEST: Final = IdempotentRequest("POST /things", "a key", b"digest")
NewWork = Callable[[], UnitOfWork]


@pytest.fixture
def sql_work(database: Database, clock: FrozenClock) -> Callable[[], SqlUnitOfWork]:
    ids = CountingIds()
    return lambda: SqlUnitOfWork(database, clock, ids)


@pytest.fixture(params=["postgres", "memory"])
def new_work(request: pytest.FixtureRequest, clock: FrozenClock) -> NewWork:
    if request.param == "postgres":
        work: NewWork = request.getfixturevalue("sql_work")
        return work
    memory = MemoryUnitOfWork(clock)
    return lambda: memory


class Effects:
    """A use case that counts its effects, and responds with their number."""

    def __init__(self, new_work: NewWork) -> None:
        self._new_work = new_work
        self.number = 0

    async def run(
        self, request: IdempotentRequest = REQUEST, *, caller: str = CALLER, fails: bool = False
    ) -> Mapping[str, JSON]:
        async with self._new_work() as work:
            first = await work.idempotency.begin(caller, request)
            if first is not None:
                return first
            if fails:
                raise LookupError
            self.number += 1
            response: dict[str, JSON] = {"number": self.number}
            await work.idempotency.keep(caller, request, response)
        return response


async def test_a_repeat_gets_the_first_response(new_work: NewWork) -> None:
    """The same caller, route, key and body have one effect, and the same response each time."""
    effects = Effects(new_work)
    assert [await effects.run() for _ in range(3)] == [{"number": 1}] * 3
    assert effects.number == 1


@pytest.mark.parametrize(
    ("caller", "request_"),
    [
        ("another", REQUEST),
        (CALLER, IdempotentRequest("POST /others", REQUEST.key, REQUEST.digest)),
        (CALLER, IdempotentRequest(REQUEST.route, "A KEY", REQUEST.digest)),
        # The texts joined by a space or without one are those of the first request.
        (f"{CALLER} POST", IdempotentRequest("/things", REQUEST.key, REQUEST.digest)),
    ],
)
async def test_keys_belong_to_caller_and_route(new_work: NewWork, caller: str, request_: IdempotentRequest) -> None:
    """Another caller, route or key has an effect of its own."""
    effects = Effects(new_work)
    await effects.run()
    assert await effects.run(request_, caller=caller) == {"number": 2}
    assert await effects.run() == {"number": 1}


async def test_another_body_is_refused(new_work: NewWork) -> None:
    """A used key with another digest raises `IdempotencyKeyReused` and has no effect; the response stays kept."""
    effects = Effects(new_work)
    await effects.run()
    with pytest.raises(IdempotencyKeyReused):
        await effects.run(IdempotentRequest(REQUEST.route, REQUEST.key, b"other"))
    assert await effects.run() == {"number": 1}


async def test_errors_are_not_kept(new_work: NewWork) -> None:
    """A request that fails leaves no trace: its repeat, with the same or another body, has its effect."""
    effects = Effects(new_work)
    for digest in (b"other", REQUEST.digest):
        with pytest.raises(LookupError):
            await effects.run(IdempotentRequest(REQUEST.route, REQUEST.key, digest), fails=True)
    assert await effects.run() == {"number": 1}


async def test_responses_are_kept_for_a_day(new_work: NewWork, clock: FrozenClock) -> None:
    """Up to 24 hours later the response is the first one; after that the key is new, for any body."""
    effects = Effects(new_work)
    await effects.run()
    clock.advance(24 * HOUR - timedelta(microseconds=1))
    assert await effects.run() == {"number": 1}
    clock.advance(timedelta(microseconds=1))
    other = IdempotentRequest(REQUEST.route, REQUEST.key, b"other")
    assert await effects.run(other) == {"number": 2}
    clock.advance(23 * HOUR)
    assert await effects.run(other) == {"number": 2}


@pytest.mark.parametrize("response", [{"text": "\0"}, {"number": float("nan")}, {"text": "x" * 70_000}], ids=str)
async def test_only_json_is_kept(new_work: NewWork, response: dict[str, JSON]) -> None:
    """A response that is no JSON, cannot be stored or is too large raises `PayloadRefused`, which undoes the effect."""

    async def keep() -> None:
        async with new_work() as work:
            assert await work.idempotency.begin(CALLER, REQUEST) is None
            await work.idempotency.keep(CALLER, REQUEST, response)

    with pytest.raises(PayloadRefused):
        await keep()
    assert await Effects(new_work).run() == {"number": 1}


async def test_expired_responses_are_purged(new_work: NewWork, clock: FrozenClock) -> None:
    """Up to the limit of expired responses is deleted at a time, and no other one."""
    effects = Effects(new_work)
    for number in range(3):
        await effects.run(IdempotentRequest(REQUEST.route, str(number), b""))
    clock.advance(24 * HOUR)
    await effects.run()
    async with new_work() as work:
        assert [await work.idempotency.purge(limit=2) for _ in range(3)] == [2, 1, 0]
    assert await effects.run() == {"number": 4}


async def test_the_hourly_task_purges_responses(
    database: Database, sql_work: Callable[[], SqlUnitOfWork], clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that purges messages deletes all expired responses too, in batches."""
    effects = Effects(sql_work)
    for number in range(5):
        await effects.run(IdempotentRequest(REQUEST.route, str(number), b""))
    clock.advance(24 * HOUR)
    await effects.run()
    monkeypatch.setattr("tequipy_platform.tasks.BATCH_SIZE", 2)
    (task,), handlers = TASKS, build_handlers(build_message_log(database), sql_work)
    await handlers[task](Delivery(uuid4(), task.name))
    async with sql_work() as work:
        assert await work.idempotency.purge(limit=10) == 0
    assert await effects.run() == {"number": 6}


STEPS = st.lists(
    st.tuples(
        st.sampled_from("ab"),  # the caller
        st.sampled_from(["POST /x", "POST /y"]),
        st.sampled_from(["1", "2"]),  # the key
        st.sampled_from([b"m", b"n"]),  # the digest
        st.booleans(),  # whether the use case fails
        st.sampled_from([0, 1, 23, 24]),  # hours that pass afterwards
    ),
    max_size=12,
)


@given(steps=STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_sequence_of_requests(new_work: NewWork, clock: FrozenClock, steps: list[tuple[str, ...]]) -> None:
    """Whatever the order of requests, failures and hours, each gets what a model of the promise says."""
    effects, example = Effects(new_work), str(uuid4())
    kept: dict[tuple[object, ...], tuple[object, object, object]] = {}
    for caller, route, key, digest, fails, hours in steps:
        expected: object
        found = kept.get((caller, route, key))
        if found is not None and found[2] <= clock.now() - 24 * HOUR:  # type: ignore[operator]
            found = None
        if found is not None:
            expected = found[1] if found[0] == digest else IdempotencyKeyReused
        elif fails:
            expected = LookupError
        else:
            expected = {"number": effects.number + 1}
            kept[caller, route, key] = (digest, expected, clock.now())
        request = IdempotentRequest(route, key, digest)  # type: ignore[arg-type]
        outcome: object
        try:
            outcome = await effects.run(request, caller=f"{example} {caller}", fails=bool(fails))
        except (IdempotencyKeyReused, LookupError) as error:
            outcome = type(error)
        assert outcome == expected
        clock.advance(hours * HOUR)  # type: ignore[operator]


async def test_parallel_requests_have_one_effect(new_work: NewWork) -> None:
    """Of 20 parallel requests with one key one has its effect; each other gets its response or is told to wait."""
    effects = Effects(new_work)
    outcomes = await asyncio.gather(*(effects.run() for _ in range(20)), return_exceptions=True)
    assert effects.number == 1
    assert {"number": 1} in outcomes
    for outcome in outcomes:
        assert outcome == {"number": 1} or isinstance(outcome, IdempotencyKeyInUse)
    assert await effects.run() == {"number": 1}


async def test_a_running_request_locks_its_key_alone(sql_work: Callable[[], SqlUnitOfWork]) -> None:
    """While the first request runs, its repeat is refused at once, with any body; other keys are free."""
    effects = Effects(sql_work)
    async with sql_work() as running:
        assert await running.idempotency.begin(CALLER, REQUEST) is None
        for digest in (REQUEST.digest, b"other"):
            with pytest.raises(IdempotencyKeyInUse):
                await effects.run(IdempotentRequest(REQUEST.route, REQUEST.key, digest))
        assert await effects.run(IdempotentRequest(REQUEST.route, "other", b"")) == {"number": 1}
        assert await effects.run(caller="another") == {"number": 2}
        await running.idempotency.keep(CALLER, REQUEST, {"number": "first"})
    assert await effects.run() == {"number": "first"}


PROGRAM = Path(__file__).with_name("killed_request.py")


@pytest.mark.parametrize(("moment", "effects"), [("before_commit", 0), ("after_commit", 1)])
async def test_a_process_dies_between_effect_and_response(
    moment: str, effects: int, sql_work: Callable[[], SqlUnitOfWork], database_url: str
) -> None:
    """A process that is killed before its commit leaves nothing, and after it both the effect and the response."""
    died = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(PROGRAM), database_url, moment], check=False, timeout=60
    )
    assert died.returncode == -signal.SIGKILL
    assert await first_response(sql_work) == ({"made": "thing"} if effects else None)
    async with sql_work() as work:
        assert await work.inbox.take(EFFECT) is not bool(effects)


async def first_response(sql_work: Callable[[], SqlUnitOfWork]) -> Mapping[str, JSON] | None:
    """Return what a repeat of the killed request gets, as soon as the server has seen that the client is gone."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with sql_work() as work:
                    return await work.idempotency.begin("caller", IdempotentRequest("POST /things", "key", b""))
            except IdempotencyKeyInUse:
                await asyncio.sleep(0.02)

"""The hashing threads and the limit of their queue."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import NoReturn

import pytest
from prometheus_client import CollectorRegistry

from tequipy_auth import HashingClient
from tequipy_auth.infrastructure import hashing
from tequipy_auth.infrastructure.hashing import (
    NICENESS,
    HashingPool,
    Priority,
    check_digest,
    is_bcrypt_digest,
    make_digest,
)
from tequipy_auth.infrastructure.metrics import HashingMetrics
from tequipy_platform import Unavailable

CLIENT = HashingClient("192.0.2.1")


class Gate:
    """A function that runs until the test releases it."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self._open = threading.Event()

    def work(self) -> str:
        self.begun.release()
        assert self._open.wait(timeout=30)
        return "done"

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def pool(gate: Gate) -> AsyncIterator[HashingPool]:
    """Yield a pool of two threads and a queue of one place."""
    pool = HashingPool(queue=1, workers=2)
    async with pool:
        yield pool
        gate.open()


async def test_a_full_queue_is_refused_at_once(pool: HashingPool, gate: Gate) -> None:
    """With two running hashes and one waiting, the next one gets `Unavailable`; a free place accepts hashes again."""
    running = [asyncio.create_task(pool.run(CLIENT, gate.work)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refusal:
        await pool.run(CLIENT, gate.work)
    assert refusal.value.retry_after >= 1
    assert pool.pending == 3
    gate.open()
    assert await asyncio.gather(*running) == ["done"] * 3
    assert await pool.run(CLIENT, gate.work) == "done"
    assert pool.pending == 0


async def test_the_event_loop_runs_while_threads_hash(pool: HashingPool, gate: Gate) -> None:
    """The event loop itself releases the running hash, so it is not blocked."""
    hashing = asyncio.create_task(pool.run(CLIENT, gate.work))
    assert await asyncio.to_thread(gate.begun.acquire, timeout=30)
    assert not hashing.done()
    gate.open()
    assert await hashing == "done"


async def test_a_cancelled_hash_frees_its_place(pool: HashingPool, gate: Gate) -> None:
    """A running hash keeps its thread after cancellation; a waiting one frees its place at once."""
    callers = [asyncio.create_task(pool.run(CLIENT, gate.work)) for _ in range(3)]
    for _ in range(2):
        assert await asyncio.to_thread(gate.begun.acquire, timeout=30)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert pool.pending == 2
    gate.open()
    async with asyncio.timeout(30):
        while pool.pending:
            await asyncio.sleep(0.001)


async def test_an_evicted_hash_is_refused_while_it_waits(gate: Gate) -> None:
    """A hash of another network evicts the newest waiting one, whose caller gets `Unavailable` at once."""
    registry = CollectorRegistry()
    marked = HashingClient("198.51.100.7", marked=True)
    async with HashingPool(queue=4, workers=1, name="passwords", metrics=HashingMetrics(registry)) as pool:
        running = asyncio.create_task(pool.run(CLIENT, gate.work))
        assert await asyncio.to_thread(gate.begun.acquire, timeout=30)
        attack = [asyncio.create_task(pool.run(CLIENT, gate.work)) for _ in range(3)]
        await asyncio.sleep(0)
        newcomers = [
            asyncio.create_task(pool.run(client, gate.work)) for client in (HashingClient("198.51.100.7"), marked)
        ]
        with pytest.raises(Unavailable):
            await asyncio.wait_for(attack[2], timeout=30)
        assert pool.pending == 5
        gate.open()
        assert await asyncio.gather(running, *attack[:2], *newcomers) == ["done"] * 5

    def sample(name: str, client: str) -> float | None:
        return registry.get_sample_value(f"auth_hashing_{name}", {"pool": "passwords", "client": client})

    assert sample("refused_total", "unmarked") == 1
    assert sample("refused_total", "marked") is None
    assert (sample("wait_seconds_count", "unmarked"), sample("wait_seconds_count", "marked")) == (4, 1)


async def test_networks_take_turns_at_the_threads(gate: Gate) -> None:
    """A hash of a second network runs next although three of the first have waited longer."""
    order: list[str] = []
    async with HashingPool(queue=8, workers=1) as pool:
        running = asyncio.create_task(pool.run(CLIENT, gate.work))
        assert await asyncio.to_thread(gate.begun.acquire, timeout=30)
        waiting = [asyncio.create_task(pool.run(CLIENT, order.append, f"attack{i}")) for i in range(3)]
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(pool.run(HashingClient("198.51.100.7"), order.append, "other")))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(running, *waiting)
    assert order == ["attack0", "other", "attack1", "attack2"]


async def test_a_closing_pool_refuses_waiting_hashes_and_finishes_running_ones(gate: Gate) -> None:
    """Waiting callers get `Unavailable`; the caller of the running hash gets its result."""
    pool = HashingPool(queue=2, workers=1)
    async with pool:
        running = asyncio.create_task(pool.run(CLIENT, gate.work))
        assert await asyncio.to_thread(gate.begun.acquire, timeout=30)
        waiting = [asyncio.create_task(pool.run(CLIENT, gate.work)) for _ in range(2)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(pool.__aexit__(None, None, None))
        for each in waiting:
            with pytest.raises(Unavailable):
                await asyncio.wait_for(each, timeout=30)
        assert not running.done()
        gate.open()
        await closing
        assert await running == "done"
        assert pool.pending == 0


async def test_errors_reach_the_caller(pool: HashingPool) -> None:
    """An error in the thread is raised in the caller, and the place is free again."""
    with pytest.raises(ZeroDivisionError):
        await pool.run(CLIENT, lambda: 1 / 0)
    assert pool.pending == 0


async def test_a_pool_starts_its_threads_on_demand() -> None:
    """No thread exists before the first hash or after the context, and a closed pool can be used again."""

    def hashing_threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("auth-hashing")}

    pool = HashingPool(queue=1)
    before = hashing_threads()
    for _ in range(2):
        async with pool:
            thread = await pool.run(CLIENT, threading.current_thread)
            assert hashing_threads() - before == {thread}
        assert hashing_threads() <= before


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "x",
        "$2b$04$short",
        "$2b$16$" + "a" * 53,
        "$2b$31$" + "a" * 53,
        "$2x$04$" + "a" * 53,
        "$2b$04$" + "ä" * 53,
        "$2b$04$" + "a" * 53 + "\n",
    ],
)
def test_malformed_and_expensive_digests_are_refused(digest: str) -> None:
    """Malformed digests and costs above 15 are never passed to bcrypt."""
    assert not is_bcrypt_digest(digest)


def test_a_digest_matches_its_own_material() -> None:
    """Other material, a damaged salt and more than 72 bytes return False."""
    digest = make_digest(b"material", 4)
    assert is_bcrypt_digest(digest)
    assert check_digest(b"material", digest)
    assert not check_digest(b"Material", digest)
    assert not check_digest(b"material", "$2b$04$" + "a" * 53)
    assert not check_digest(b"m" * 73, digest)


def priority() -> tuple[int, int]:
    """Return policy and niceness of the current thread."""
    thread = threading.get_native_id()
    return os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)


def refuse(*_: object) -> NoReturn:
    raise PermissionError


linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")


@linux
async def test_hashing_threads_have_a_lower_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle threads give way to all others on several cores; those of other pools are as usual."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    before = priority()
    async with HashingPool(queue=1, priority="idle") as idle, HashingPool(queue=1) as usual:
        assert (await idle.run(CLIENT, priority))[0] == os.SCHED_IDLE
        assert await usual.run(CLIENT, priority) == before
    assert priority() == before


@linux
@pytest.mark.parametrize(
    ("setting", "name", "answer"),
    [
        ("low", "sched_getaffinity", lambda _: {0, 1}),
        ("idle", "sched_getaffinity", lambda _: {0}),
        ("idle", "sched_setscheduler", refuse),
    ],
)
async def test_hashing_threads_are_nice(
    monkeypatch: pytest.MonkeyPatch, setting: Priority, name: str, answer: Callable[..., object]
) -> None:
    """Threads of low priority have a higher niceness, and so have idle ones on one core, or if that is refused."""
    monkeypatch.setattr(os, name, answer)
    policy, niceness = priority()
    async with HashingPool(queue=1, priority=setting) as low:
        assert await low.run(CLIENT, priority) == (policy, min(niceness + NICENESS, 19))


@linux
async def test_a_refused_priority_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where both are refused, threads hash with the usual priority, and one log event says so."""
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "setpriority", refuse)
    hashing._report_refusal.cache_clear()
    before = priority()
    for _ in range(2):
        async with HashingPool(queue=1, priority="idle") as low:
            assert await low.run(CLIENT, priority) == before
    assert [record.message for record in caplog.records] == ["hashing_priority_refused"]

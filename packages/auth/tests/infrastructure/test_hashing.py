"""The threads that hash, and the bound of their queue."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator

import pytest

from tequipy_auth import HashingClient
from tequipy_auth.infrastructure.hashing import HashingPool, check_digest, is_bcrypt_digest, make_digest
from tequipy_platform import Unavailable

CLIENT = HashingClient("192.0.2.1")


class Gate:
    """Work that lasts until the test lets it go."""

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
    """Yield a pool of two threads with room for one more."""
    pool = HashingPool(queue=1, workers=2)
    async with pool:
        yield pool
        gate.open()


async def test_a_full_queue_is_refused_at_once(pool: HashingPool, gate: Gate) -> None:
    """Two that run and one that waits are the limit; the next is told when to come back, and then has room."""
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


async def test_the_event_loop_goes_on_while_threads_hash(pool: HashingPool, gate: Gate) -> None:
    """What the loop does meanwhile is done before the hash: shown by the order, for the loop itself opens the gate."""
    hashing = asyncio.create_task(pool.run(CLIENT, gate.work))
    assert await asyncio.to_thread(gate.begun.acquire, timeout=30)
    assert not hashing.done()
    gate.open()
    assert await hashing == "done"


async def test_a_caller_that_leaves_gives_its_place_back_only_with_the_work(pool: HashingPool, gate: Gate) -> None:
    """A cancelled hash that runs keeps its place until its thread is free; one that waits leaves at once."""
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


async def test_errors_reach_the_caller(pool: HashingPool) -> None:
    """An error on the thread is raised where the hash was asked for, and the place is free again."""
    with pytest.raises(ZeroDivisionError):
        await pool.run(CLIENT, lambda: 1 / 0)
    assert pool.pending == 0


async def test_a_pool_starts_late_and_again() -> None:
    """No thread before the first hash, none after the context, and a closed pool may be used again."""
    pool = HashingPool(queue=1)
    before = threading.active_count()
    for _ in range(2):
        async with pool:
            thread = await pool.run(CLIENT, threading.current_thread)
            assert thread.is_alive()
        assert not thread.is_alive()
    assert threading.active_count() <= before + 1  # to_thread's own


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
def test_unbearable_digests_are_refused(digest: str) -> None:
    """Malformed digests and costs above 15 are never handed to bcrypt."""
    assert not is_bcrypt_digest(digest)


def test_a_digest_matches_its_own_material() -> None:
    """What was hashed is checked; another material, a damaged salt and more than 72 bytes are False."""
    digest = make_digest(b"material", 4)
    assert is_bcrypt_digest(digest)
    assert check_digest(b"material", digest)
    assert not check_digest(b"Material", digest)
    assert not check_digest(b"material", "$2b$04$" + "a" * 53)
    assert not check_digest(b"m" * 73, digest)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no niceness of their own")
async def test_hashing_threads_give_way_to_the_event_loop() -> None:
    """They are nicer than the thread of the loop, which stays as it was."""

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    async with HashingPool(queue=1, niceness=5) as nice, HashingPool(queue=1) as usual:
        assert await nice.run(CLIENT, niceness) == min(before + 5, 19)
        assert await usual.run(CLIENT, niceness) == before
    assert niceness() == before

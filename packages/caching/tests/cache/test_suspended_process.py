"""A suspended process reads no messages, and uses its L1 again only when it has read the channel."""

import asyncio
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
from pydantic import SecretStr

from tequipy_caching import MISSING, CachePolicy
from tequipy_caching.redis.backplane import ANSWER_TIMEOUT, PING_AFTER
from tequipy_caching.wiring import CacheSettings, build_cache

SLEEPER = Path(__file__).with_name("sleeper.py")
TRUSTED = PING_AFTER + ANSWER_TIMEOUT


def delete_elsewhere(url: str, prefix: str) -> threading.Thread:
    """Delete the key in another process, here a thread with its own event loop; return when it has begun."""

    async def delete() -> None:
        settings = CacheSettings(url=SecretStr(url), prefix=prefix, policies={"words": CachePolicy(ttl=60)})
        async with build_cache(settings) as manager:
            await manager.cache("words", str).delete("ada")

    thread = threading.Thread(target=lambda: asyncio.run(delete()))
    thread.start()
    return thread


@pytest.mark.parametrize("seconds", [TRUSTED + 0.1, TRUSTED + 2])
async def test_a_blocked_process_serves_no_deleted_value(
    start: Any, redis_url: str, redis_prefix: str, eventually: Callable[..., Any], seconds: float
) -> None:
    """After blocking code or SIGSTOP, the first read asks Redis; afterwards L1 is used again."""
    manager = await start(redis_url)
    words = manager.cache("words", str)
    await words.set("ada", "old")
    await words.set("bob", "Bob")
    await eventually(lambda: words.peek("ada") == "old")
    thread = delete_elsewhere(redis_url, redis_prefix)
    time.sleep(seconds)  # noqa: ASYNC251 -- the fault
    thread.join()
    assert words.peek("ada") is MISSING
    assert await words.get("ada") is None
    await eventually(lambda: manager.backplane.live)
    assert words.peek("ada") is MISSING
    assert await words.get("bob") == "Bob"


@pytest.fixture
async def sleepers(redis_url: str, redis_prefix: str) -> AsyncIterator[dict[str, Process]]:
    """Yield a process of each kind that reads continuously."""
    processes = {
        kind: await asyncio.create_subprocess_exec(
            sys.executable, SLEEPER, redis_url, redis_prefix, kind, stdin=PIPE, stdout=PIPE
        )
        for kind in ("checking", "trusting")
    }
    yield processes
    for process in processes.values():
        with suppress(ProcessLookupError):
            process.send_signal(SIGCONT)
            process.terminate()
        await process.wait()


async def ask(process: Process, line: str) -> str:
    """Send a line to a process, and return its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n".encode())
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().strip()


async def test_a_stopped_process_serves_no_deleted_value(
    start: Any, redis_url: str, sleepers: dict[str, Process]
) -> None:
    """After SIGSTOP and SIGCONT a real process serves no deleted value; with the mechanism switched off it does."""
    words = (await start(redis_url)).cache("words", str)
    old: dict[str, list[int]] = {kind: [] for kind in sleepers}
    for _ in range(3):
        await words.set("ada", "old")
        for sleeper in sleepers.values():
            assert await ask(sleeper, "hold") == "held"
        for sleeper in sleepers.values():
            sleeper.send_signal(SIGSTOP)
        await words.delete("ada")
        await asyncio.sleep(TRUSTED + 0.1)  # longer than a process trusts the channel
        for kind, sleeper in sleepers.items():
            went_on = time.monotonic()
            sleeper.send_signal(SIGCONT)
            old[kind].append(int(await ask(sleeper, repr(went_on))))
    print(f"old reads in each round: {old}")
    assert sum(old["checking"]) == 0
    assert sum(old["trusting"]) > 0


async def test_a_loop_of_hits_serves_a_deleted_value_for_a_limited_time(
    start: Any, redis_url: str, redis_prefix: str
) -> None:
    """A loop of hits that never yields to the event loop serves a deleted value no longer than a cut channel would."""
    manager = await start(redis_url)
    words = manager.cache("words", str)
    await words.set("ada", "old")
    thread = delete_elsewhere(redis_url, redis_prefix)
    ends = time.monotonic() + 15
    value: Any = "old"
    while value == "old" and (time.monotonic() < ends or thread.is_alive()):
        value = await words.get("ada")
    thread.join()
    assert value is None


async def test_messages_do_not_extend_the_trusted_time(start: Any, redis_url: str) -> None:
    """Only the response to a check extends the trusted time; messages do not, however many arrive."""
    one, other = [await start(redis_url) for _ in range(2)]
    words = one.cache("words", str)
    ends = time.monotonic() + 2 * TRUSTED
    lived: list[float] = []
    while time.monotonic() < ends:
        await words.delete("nobody")
        lived.append(other.backplane.live_until)
        assert other.backplane.live
    assert len(set(lived)) < len(lived) / 2
    assert lived[-1] > lived[0]

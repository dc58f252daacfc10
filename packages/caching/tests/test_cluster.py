"""The cluster lock between real processes; run as a program, this file is one of the processes."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tequipy_caching import CachePolicy
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.servers import ValkeyServer

PROCESSES = 8
CALLERS = 50
Start = Callable[..., Awaitable[asyncio.subprocess.Process]]


async def process(
    url: str, log: Path, hard_timeout: float, load_seconds: float, l2_timeout: float, at_once: float
) -> None:
    """On command, make concurrent callers ask for one key; each load appends a line to the log.

    With `at_once`, they ask as soon as the process has started, and loads end when the file `end` exists.
    """
    policies = {"words": CachePolicy(ttl=60, lock="cluster", hard_timeout=hard_timeout)}
    async with build_cache(CacheSettings(url=SecretStr(url), policies=policies, l2_timeout=l2_timeout)) as manager:
        words = manager.cache("words", str)
        while not at_once and manager.health().backplane != "live":
            await asyncio.sleep(0.01)

        async def load() -> str:
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            await asyncio.sleep(load_seconds)
            while at_once and not log.with_name("end").exists():
                await asyncio.sleep(0.01)
            return "Ada"

        print("ready", flush=True)
        if not at_once:
            await asyncio.to_thread(sys.stdin.readline)
        found = await asyncio.gather(*(words.get_or_set("ada", load) for _ in range(CALLERS)))
        print(json.dumps(sorted(set(found))), flush=True)


@pytest.fixture
async def start(private_redis: ValkeyServer, tmp_path: Path) -> AsyncIterator[Start]:
    """Yield a function that starts a process and returns it when it is ready."""
    async with AsyncExitStack() as stack:

        async def started(
            *, hard_timeout: float = 30, load_seconds: float = 0.3, l2_timeout: float = 5, at_once: bool = False
        ) -> asyncio.subprocess.Process:
            numbers = map(str, (hard_timeout, load_seconds, l2_timeout, float(at_once)))
            arguments = (private_redis.url(), str(tmp_path / "log"), *numbers)
            pipe = asyncio.subprocess.PIPE
            child = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments, stdin=pipe, stdout=pipe)
            stack.push_async_callback(end, child)
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
            return child

        yield started


async def end(child: asyncio.subprocess.Process) -> None:
    """Kill a process that is still running."""
    if child.returncode is None:
        child.kill()
    await child.communicate()


async def commands(server: ValkeyServer) -> int:
    """Return how many commands the server has received, without those that scripts call."""
    async with Redis.from_url(server.url()) as redis:
        statistics: dict[str, Any] = await redis.info("commandstats")
    called_by_scripts = {
        "get",
        "set",
        "mget",
        "del",
        "pttl",
        "hget",
        "hset",
        "hsetnx",
        "hincrby",
        "publish",
        "getrange",
    }
    sums = {name.removeprefix("cmdstat_"): each["calls"] for name, each in statistics.items()}
    return sum(calls for name, calls in sums.items() if name not in {*called_by_scripts, "time", "hmget", "info"})


async def test_eight_processes_share_one_load(start: Start, private_redis: ValkeyServer, tmp_path: Path) -> None:
    """Fifty callers in each of eight processes miss one key: one load, and few commands, because they do not poll."""
    children = await asyncio.gather(*(start() for _ in range(PROCESSES)))
    before = await commands(private_redis)
    answers = await asyncio.gather(*(child.communicate(b"go\n") for child in children))
    asked = await commands(private_redis) - before
    loads = len((tmp_path / "log").read_text().splitlines())
    print(f"\n{PROCESSES} processes with {CALLERS} callers each: {loads} load, {asked} commands")
    assert [json.loads(out) for out, _ in answers] == [["Ada"]] * PROCESSES
    assert loads == 1
    assert asked < 200


async def subscribers(server: ValkeyServer) -> int:
    """Return how many connections are subscribed to a channel."""
    async with Redis.from_url(server.url()) as redis:
        return sum(each["sub"] != "0" for each in await redis.client_list())


async def test_processes_that_have_just_started_share_one_load(
    start: Start, private_redis: ValkeyServer, tmp_path: Path
) -> None:
    """A process that is not connected to the channel yet waits for the load of another one too."""
    children = await asyncio.gather(*(start(hard_timeout=60, load_seconds=0, at_once=True) for _ in range(PROCESSES)))
    async with asyncio.timeout(60):
        while await subscribers(private_redis) < PROCESSES:
            await asyncio.sleep(0.02)
    (tmp_path / "end").touch()
    answers = await asyncio.gather(*(child.communicate() for child in children))
    loads = len((tmp_path / "log").read_text().splitlines())
    print(f"\n{PROCESSES} processes that have just started: {loads} load")
    assert [json.loads(out) for out, _ in answers] == [["Ada"]] * PROCESSES
    assert loads == 1


async def test_another_process_loads_after_the_holder_was_killed(start: Start, tmp_path: Path) -> None:
    """If the process that loads is killed, the others wait until its lease ends, and no longer."""
    # A lease lasts for `hard_timeout` + `l2_timeout`.
    holder = await start(hard_timeout=1, load_seconds=60, l2_timeout=2)
    other = await start(hard_timeout=1, load_seconds=0, l2_timeout=2)
    assert holder.stdin is not None
    holder.stdin.write(b"go\n")
    log = tmp_path / "log"
    while not log.exists():
        await asyncio.sleep(0.01)
    holder.kill()
    out, _ = await other.communicate(b"go\n")
    assert json.loads(out) == ["Ada"]
    assert len(log.read_text().splitlines()) == 2


if __name__ == "__main__":
    URL, LOG, *NUMBERS = sys.argv[1:]
    asyncio.run(process(URL, Path(LOG), *map(float, NUMBERS)))

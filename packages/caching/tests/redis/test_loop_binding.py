"""A manager or limiter belongs to one event loop of one process, and raises `WrongEventLoop` in any other."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_caching.wiring import CacheSettings, build_cache

LOGIN = RatePolicy("login", 5, 60)


def raised_in_another_loop(call: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Await a call in an event loop of another thread, and return the exception."""
    raised: list[BaseException | None] = []

    async def run() -> None:
        await call()

    def in_thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 -- is looked at
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    return raised[0]


async def ada() -> str:
    return "Ada"


CALLS: dict[str, Callable[[Any, Any], Awaitable[object]]] = {
    "get": lambda manager, _: manager.cache("remote", str).get("ada"),
    "get_or_set": lambda manager, _: manager.cache("remote", str).get_or_set("ada", ada),
    "set": lambda manager, _: manager.cache("words", str).set("ada", "Ada"),
    "delete": lambda manager, _: manager.cache("words", str).delete("ada"),
    "add": lambda manager, _: manager.expiring_set("revoked").add("ada", ttl=60),
    "ping": lambda manager, _: manager.ping(),
    "enter": lambda manager, _: manager.__aenter__(),
    "hit": lambda _, limiter: limiter.hit(LOGIN, "ada"),
    "reset": lambda _, limiter: limiter.reset(LOGIN, "ada"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_another_event_loop_raises(
    start: Any, limiters: Callable[..., Awaitable[RedisRateLimiter]], redis_url: str, call: str
) -> None:
    """A call from the event loop of another thread raises an error with instructions, and damages nothing."""
    manager, limiter = await start(redis_url), await limiters(redis_url)
    await manager.ping()
    await limiter.hit(LOGIN, "eve")
    raised = raised_in_another_loop(lambda: CALLS[call](manager, limiter))
    print(f"{call}: {type(raised).__name__}: {raised}")
    assert type(raised).__name__ == "WrongEventLoop"
    assert "build and enter one in each event loop" in str(raised)
    await CALLS["set"](manager, limiter)
    assert manager.health().l2 == "up"
    assert not (await limiter.hit(LOGIN, "eve")).degraded


async def test_joining_a_load_of_another_event_loop_raises(start: Any, redis_url: str, factory: Any) -> None:
    """Joining a load of another event loop raises the same error, also in a cache without L2."""
    local = (await start(redis_url)).cache("local", str)
    load = factory("Ada", held=True)
    loading = asyncio.create_task(local.get_or_set("ada", load))
    await load.called()
    raised = raised_in_another_loop(lambda: local.get_or_set("ada", ada))
    assert "runs in another event loop" in str(raised)
    load.go.set()
    assert await loading == "Ada"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_fork_raises(start: Any, redis_url: str) -> None:
    """A call in a fork raises an error that tells to build another manager there."""
    manager = await start(redis_url)
    await manager.ping()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # the fork must run neither the event loop nor fixtures
        raised = raised_in_another_loop(lambda: manager.cache("words", str).set("ada", "Ada"))
        os.write(writer, f"{type(raised).__name__}: {raised}".encode())
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    said = os.read(reader, 10_000).decode()
    os.close(reader)
    os.close(writer)
    print(said)
    assert said.startswith("WrongEventLoop: ")
    assert "build and enter another one after the fork" in said
    await manager.cache("words", str).set("ada", "Ada")
    assert manager.health().l2 == "up"


def test_a_closed_manager_works_in_the_next_event_loop(redis_url: str, redis_prefix: str) -> None:
    """After it was closed, a manager can be started again in the next event loop."""
    manager = build_cache(CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix))

    async def use() -> None:
        async with manager:
            await manager.ping()

    asyncio.run(use())
    asyncio.run(use())

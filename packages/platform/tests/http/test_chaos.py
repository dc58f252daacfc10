"""Calls of every kind to an upstream with every fault, cancelled at random: nothing is left behind."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import httpx
import pytest
import uvloop
from prometheus_client import CollectorRegistry

from tequipy_devstack.proving.upstream import ANSWERS, Upstream
from tequipy_platform.http import HttpClients, HttpProfile, HttpSettings, build_http_clients

from .conftest import count_ended, soon

CALLS = 600
PROFILE = HttpProfile(connect=0.3, read=0.2, total=0.4)
SETTINGS = HttpSettings(default=PROFILE, llm=PROFILE, health=PROFILE, max_connections=20)


async def call(http: HttpClients, upstreams: list[Upstream], seed: int) -> str:
    """Make one call that depends on the seed, and return how it ended."""
    dice = random.Random(seed)  # noqa: S311 -- kinds of calls
    client = dice.choice([http.default, http.llm, http.health])
    url = dice.choice(upstreams).url + dice.choice([*ANSWERS, *["/ok"] * 8])
    await asyncio.sleep(dice.random() * 0.3)
    method = dice.choice(["GET", "POST", "PUT"])
    content = b"." * dice.choice([0, 10, 1000, 3_000_000]) if method != "GET" else None
    extensions = {"total": dice.choice([0.0, 0.01, 0.1, 1.0, 1.0, 1.0])}
    if dice.random() < 0.5:
        response = await client.request(method, url, content=content, extensions=extensions)
        return str(response.status_code)
    request = client.build_request(method, url, content=content, extensions=extensions)
    response = await client.send(request, stream=True)
    if dice.random() < 0.3:
        return "forgotten"
    async for _ in response.aiter_raw():
        if dice.random() < 0.3:
            break
    await response.aclose()
    return str(response.status_code)


async def cancelled_sometimes(work: asyncio.Task[str], seed: int) -> str:
    """Cancel a third of the calls at a random time."""
    if seed % 3 == 0:
        await asyncio.sleep((seed % 100) / 400)
        work.cancel()
    try:
        return await work
    except asyncio.CancelledError:
        return "cancelled"
    except httpx.HTTPError as error:
        return type(error).__name__


@pytest.mark.prove
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_nothing_is_left_behind(run: Callable[..., None]) -> None:
    """After 600 calls no gauge counts one as running, and no connection of a pool is lost."""
    registry = CollectorRegistry()

    async def chaos() -> None:
        clients = build_http_clients(SETTINGS, app_name="shop", app_version="1", registry=registry)
        async with clients as http, AsyncExitStack() as stack:
            ended: Counter[str] = Counter()
            for first in range(0, CALLS, 50):
                # Several hosts, so that breakers do not refuse most calls.
                upstreams = [await stack.enter_async_context(Upstream()) for _ in range(4)]
                works = [asyncio.create_task(call(http, upstreams, seed)) for seed in range(first, first + 50)]
                ended.update(await asyncio.gather(*map(cancelled_sometimes, works, range(first, first + 50))))
            assert ended.total() == CALLS
            await soon("no call is in progress", lambda: running(registry) == 0)
            other = await stack.enter_async_context(Upstream())
            for client in (http.default, http.llm, http.health):
                calls = (client.get(other.url + "/ok") for _ in range(SETTINGS.max_connections))
                responses = await asyncio.gather(*calls, return_exceptions=True)
                assert not [each for each in responses if isinstance(each, httpx.PoolTimeout)]
            print(f"\n{dict(ended.most_common())}")

    run(chaos())
    assert running(registry) == 0
    assert sum(count_ended(registry).values()) >= CALLS * 0.5


def running(registry: CollectorRegistry) -> float:
    """Return the number of calls in progress, of all profiles."""
    return sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "http_client_requests_in_progress"
    )

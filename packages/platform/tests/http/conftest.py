"""Fixtures of the tests of the HTTP client: a hostile upstream, and clients with short timeouts."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tequipy_devstack.proving.certificates import Authority
from tequipy_devstack.proving.upstream import Upstream
from tequipy_platform.http import HttpClients, HttpProfile, HttpSettings, build_http_clients

from .http2_upstream import Handler, Http2Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def quick_settings(total: float = 0.3, *, connect: float | None = None, read: float | None = None) -> HttpSettings:
    """Return settings whose profiles all have this total."""
    profile = HttpProfile(connect=connect or total, read=read or total, total=total)
    return HttpSettings(default=profile, llm=profile, health=profile, webhooks=profile)


@pytest.fixture
async def http(registry: CollectorRegistry) -> AsyncIterator[HttpClients]:
    """Clients with the timeouts of production."""
    async with build_http_clients(HttpSettings(), app_name="shop", app_version="1", registry=registry) as http:
        yield http


Ended = Callable[[], dict[str, int]]


@pytest.fixture
def ended(registry: CollectorRegistry) -> Ended:
    """Return a function that returns the number of ended calls by outcome."""
    return lambda: count_ended(registry)


def count_ended(registry: CollectorRegistry) -> dict[str, int]:
    """Return the number of ended calls by outcome."""
    counted: Counter[str] = Counter()
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name == "http_client_requests_total":
                counted[sample.labels["outcome"]] += int(sample.value)
    return dict(counted)


async def soon(what: str, probe: Callable[[], object]) -> None:
    """Wait until the probe is true."""
    try:
        async with asyncio.timeout(30):
            while not probe():
                await asyncio.sleep(0.005)
    except TimeoutError as error:
        raise AssertionError(f"not within 30 s: {what}") from error


Calling = Callable[..., AbstractAsyncContextManager[tuple[Http2Upstream, HttpClients]]]


@pytest.fixture
def calling(tmp_path: Path) -> Calling:
    """Return a context manager with an upstream and the clients that trust its certificate."""

    @asynccontextmanager
    async def run(handler: Handler, *, attempts: int = 1) -> AsyncIterator[tuple[Http2Upstream, HttpClients]]:
        authority = Authority(tmp_path / "authority")
        profile = HttpProfile(connect=10, read=20, total=30)
        settings = HttpSettings(default=profile, ca_file=authority.certificate, attempts=attempts)
        async with (
            Http2Upstream(authority.issue("127.0.0.1"), handler).running() as upstream,
            build_http_clients(settings, app_name="shop", app_version="1") as http,
        ):
            yield upstream, http

    return run

"""The effect of parallel logins on other requests."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import quantiles
from threading import Event

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tequipy_devstack.proving import Deployment, Load, eventually
from tequipy_devstack.proving.load import Sample
from tequipy_devstack.proving.traffic import HEALTH, PASSWORD

from .accounts import create_accounts

ACCOUNTS = [f"user{number}@example.com" for number in range(30)]
COST = "12"


@pytest.fixture
def accounts(deployment: Deployment) -> None:
    """Create thirty verified accounts with hashes at the cost of production."""
    create_accounts(deployment, ACCOUNTS, TEQUIPY_AUTH__BCRYPT_COST=COST)


@contextmanager
def thirty_logins(url: str) -> Iterator[list[int]]:
    """Keep thirty logins in progress, one per account, while the block lasts; yield their statuses."""
    over, statuses = Event(), list[int]()

    async def log_in(client: httpx.AsyncClient, email: str) -> None:
        body = {"email": email, "password": PASSWORD, "token_delivery": "body"}
        while not over.is_set():
            statuses.append((await client.post("/api/v1/auth/login", json=body)).status_code)

    async def log_all_in() -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=len(ACCOUNTS))
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            await asyncio.gather(*(log_in(client, email) for email in ACCOUNTS))

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, log_all_in())
        try:
            eventually("the first is logged in", lambda: bool(statuses))
            yield statuses
        finally:
            over.set()
            running.result()


def percentiles(samples: list[Sample]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    found = quantiles([sample.seconds * 1000 for sample in samples], n=100)
    return found[49], found[98]


def loop_lags(url: str) -> tuple[float, float]:
    """Return the number of measurements of the event loop, and of those with a lag below the time of one hash."""
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60).text)
        for sample in family.samples
    }
    name = "event_loop_lag_seconds"
    return samples[f"{name}_count", None], samples[f"{name}_bucket", "0.25"]


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("accounts")
def test_thirty_parallel_logins_hardly_slow_other_requests(deployment: Deployment) -> None:
    """bcrypt runs in separate threads, so other requests do not wait for a hash."""
    with deployment.api(TEQUIPY_AUTH__BCRYPT_COST=COST) as api:
        with Load(api.url, [HEALTH], rate=50) as alone:
            alone.send(500)
        before = loop_lags(api.url)
        with thirty_logins(api.url) as statuses, Load(api.url, [HEALTH], rate=50) as beside:
            beside.send(500)
        looked, in_time = (after - earlier for after, earlier in zip(loop_lags(api.url), before, strict=True))
    quiet, busy = percentiles(alone.samples), percentiles(beside.samples)
    print(
        f"\n/health alone: p50 {quiet[0]:.1f} ms, p99 {quiet[1]:.1f} ms; beside 30 parallel logins: "
        f"p50 {busy[0]:.1f} ms, p99 {busy[1]:.1f} ms; {len(statuses)} logins meanwhile; "
        f"the event loop came within 250 ms {in_time:.0f} of {looked:.0f} times"
    )
    assert all(sample.good for sample in alone.samples + beside.samples)
    assert set(statuses) == {200}
    # The server's own metric, because on a busy machine the percentiles also depend on this test process.
    assert in_time > 0.9 * looked

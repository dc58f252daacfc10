"""Logins in parallel, and what other requests feel of them."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import quantiles
from threading import Event

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import httpx
import pytest

from tequipy_devstack.proving import House, Load
from tequipy_devstack.proving.load import Sample
from tequipy_devstack.proving.traffic import HEALTH, PASSWORD

ACCOUNTS = [f"user{number}@example.com" for number in range(30)]
COST = "12"


@pytest.fixture
def accounts(house: House) -> None:
    """Thirty verified accounts, their passwords hashed at the cost of production."""

    async def verify() -> None:
        connection = await asyncpg.connect(house.environment["TEQUIPY_DATABASE__URL"].replace("+asyncpg", ""))
        await connection.execute("update auth.users set email_verified = true")
        await connection.close()

    with house.api(TEQUIPY_AUTH__REGISTRATION_MODE="open", TEQUIPY_AUTH__BCRYPT_COST=COST) as api:
        for email in ACCOUNTS:
            body = {"email": email, "password": PASSWORD}
            assert httpx.post(f"{api.url}/api/v1/auth/register", json=body, timeout=60).status_code == 201
    asyncio.run(verify())


@contextmanager
def thirty_logins(url: str) -> Iterator[list[int]]:
    """Keep thirty logins under way, one for each account, for as long as the block lasts; yield their statuses."""
    over, statuses = Event(), list[int]()

    def log_in(email: str) -> None:
        body = {"email": email, "password": PASSWORD, "token_delivery": "body"}
        with httpx.Client(base_url=url, timeout=60) as client:
            while not over.is_set():
                statuses.append(client.post("/api/v1/auth/login", json=body).status_code)

    with ThreadPoolExecutor(len(ACCOUNTS)) as threads:
        running = [threads.submit(log_in, email) for email in ACCOUNTS]
        try:
            yield statuses
        finally:
            over.set()
            for each in running:
                each.result()


def percentiles(samples: list[Sample]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    found = quantiles([sample.seconds * 1000 for sample in samples], n=100)
    return found[49], found[98]


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("accounts")
def test_thirty_parallel_logins_are_hardly_felt(house: House) -> None:
    """bcrypt works on threads of its own that give way: other requests are answered as before, or nearly."""
    with house.api(TEQUIPY_AUTH__BCRYPT_COST=COST) as api:
        with Load(api.url, [HEALTH], rate=50) as alone:
            alone.send(500)
        with thirty_logins(api.url) as statuses, Load(api.url, [HEALTH], rate=50) as beside:
            beside.send(500)
    quiet, busy = percentiles(alone.samples), percentiles(beside.samples)
    print(
        f"\n/health alone: p50 {quiet[0]:.1f} ms, p99 {quiet[1]:.1f} ms; beside 30 parallel logins: "
        f"p50 {busy[0]:.1f} ms, p99 {busy[1]:.1f} ms; {len(statuses)} logins meanwhile"
    )
    assert all(sample.good for sample in alone.samples + beside.samples)
    assert set(statuses) == {200}
    assert busy[1] < 500

"""A repeated `GET /me` is served from the memory of the process."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlalchemy import Engine, event

from tequipy_devstack.servers import ValkeyServer

ACCOUNT = {"email": "admin@example.com", "password": "correct horse battery staple"}
REQUESTS = 400  # of 600 a minute
SENT = ("cmdstat_evalsha", "cmdstat_eval")
"""What requests send: scripts. The statistics contain the commands in scripts too."""


@pytest.fixture
def environment(
    environment: dict[str, str], private_redis: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Give the app a Redis of its own, which nothing uses but its requests."""
    monkeypatch.setattr("tequipy_caching.expiring_set.sets.CHECK_EVERY", 3600.0)
    return environment | {"TEQUIPY_CACHE__URL": private_redis.url()}


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Return the statements that all engines of this process execute."""
    executed: list[str] = []

    def executing(*arguments: object) -> None:
        executed.append(str(arguments[2]))

    event.listen(Engine, "before_cursor_execute", executing)
    yield executed
    event.remove(Engine, "before_cursor_execute", executing)


async def commands(server: ValkeyServer) -> int:
    """Return how many commands the server has received from requests."""
    async with Redis.from_url(server.url()) as redis:
        stats = await redis.info("commandstats")
    return sum(stats[name]["calls"] for name in SENT)


async def test_a_repeated_me_costs_no_query_and_hardly_a_command(
    app: FastAPI, client: httpx.AsyncClient, private_redis: ValkeyServer, statements: list[str]
) -> None:
    """Far from the rate limit, a repeated `GET /me` has no query and under 0.1 commands to Redis."""
    await app.state.auth.registration.create_admin(**ACCOUNT)
    login = await client.post("/api/v1/auth/login", json=ACCOUNT)
    bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
    assert (await client.get("/api/v1/auth/me", headers=bearer)).status_code == 200
    revocations = app.state.auth.access_tokens._revocations._members
    async with asyncio.timeout(30):
        while not revocations.live:
            await asyncio.sleep(0.01)
    before = await commands(private_redis)
    statements.clear()
    for _ in range(REQUESTS):
        assert (await client.get("/api/v1/auth/me", headers=bearer)).status_code == 200
    used = (await commands(private_redis) - before) / REQUESTS
    print(f"\nqueries: {len(statements) / REQUESTS:g}, commands: {used:.3f} a request")
    assert statements == []
    assert used < 0.1

"""Readiness of the shipped app while its dependencies are stopped, frozen or broken, and after they are back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_devstack.proving.network import Link
from tequipy_devstack.proving.s3 import new_bucket
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_devstack.tables import create_tables

READINESS = "/api/v1/readiness"


@asynccontextmanager
async def serving(settings: ApiSettings, **sections: dict[str, object]) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the app with some settings sections changed."""
    changed = {name: getattr(settings, name).model_dump() | section for name, section in sections.items()}
    app = create_app(ApiSettings.model_validate(settings.model_dump() | changed))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example.com") as client,
    ):
        yield client


async def ask(client: httpx.AsyncClient) -> tuple[int, str, dict[str, str]]:
    """Return status, outcome and checks of a readiness request; check its duration and that it shows no cause."""
    started = time.monotonic()
    answer = await client.get(READINESS)
    assert time.monotonic() - started < 4, "each check has 2 s, all of them side by side"
    report = answer.json()
    assert report.keys() == {"status", "checks"}
    assert all(check.keys() == {"status", "duration_ms"} for check in report["checks"].values())
    return answer.status_code, report["status"], {name: check["status"] for name, check in report["checks"].items()}


async def becomes(client: httpx.AsyncClient, status: int, outcome: str, *down: str) -> None:
    """Poll until readiness is as expected with exactly these checks down; fail after a deadline."""
    expected = (status, outcome, {name: "down" if name in down else "up" for name in ("database", "redis", "storage")})
    deadline = time.monotonic() + 30
    while (seen := await ask(client)) != expected:
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.05)


async def test_without_redis_the_service_is_degraded(settings: ApiSettings, private_redis: ValkeyServer) -> None:
    """With Redis frozen or killed readiness is 200 `degraded`, and 200 `ready` when it is back."""
    async with serving(settings, cache={"url": private_redis.url()}) as client:
        await becomes(client, 200, "ready")
        private_redis.freeze()
        await becomes(client, 200, "degraded", "redis")
        private_redis.thaw()
        await becomes(client, 200, "ready")
        private_redis.kill()
        await becomes(client, 200, "degraded", "redis")
        private_redis.start()
        await becomes(client, 200, "ready")


async def test_without_the_database_the_service_is_not_ready(
    settings: ApiSettings, private_postgres: PostgresServer
) -> None:
    """With PostgreSQL frozen or killed readiness is 503 `not_ready`, without waiting for a frozen server."""
    url = private_postgres.create_database("tequipy")
    await asyncio.to_thread(create_tables, url)
    async with serving(settings, database={"url": url}) as client:
        await becomes(client, 200, "ready")
        private_postgres.freeze()
        await becomes(client, 503, "not_ready", "database")
        private_postgres.thaw()
        await becomes(client, 200, "ready")
        private_postgres.kill()
        await becomes(client, 503, "not_ready", "database")
        private_postgres.start()
        await becomes(client, 200, "ready")


async def test_without_storage_the_service_is_not_ready(settings: ApiSettings, tmp_path: Path) -> None:
    """With the folder replaced by a file readiness is 503, and 200 when it is restored."""
    folder = tmp_path / "objects"
    async with serving(settings, storage={"url": folder.as_uri()}) as client:
        await becomes(client, 200, "ready")
        folder.rename(tmp_path / "elsewhere")
        folder.touch()
        await becomes(client, 503, "not_ready", "storage")
        folder.unlink()
        (tmp_path / "elsewhere").rename(folder)
        await becomes(client, 200, "ready")


async def test_without_s3_the_service_is_not_ready(settings: ApiSettings, s3_server: str) -> None:
    """With S3 away or silent readiness is 503, without waiting for S3's timeout, and 200 when it is back."""
    bucket = await asyncio.to_thread(new_bucket, s3_server)
    async with Link(int(s3_server.rpartition(":")[2])) as link:
        keys = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "a-secret-key", "timeout": 5}
        server = {"url": f"s3://{bucket}", "endpoint": f"http://127.0.0.1:{link.port}"}
        async with serving(settings, storage={**server, **keys}) as client:
            await becomes(client, 200, "ready")
            target, link.target = link.target, None
            await becomes(client, 503, "not_ready", "storage")
            link.target = target
            await becomes(client, 200, "ready")
            link.delay = 60
            await becomes(client, 503, "not_ready", "storage")
            link.delay = 0
            await becomes(client, 200, "ready")

"""Connecting to PostgreSQL with callers that are cancelled meanwhile."""

import asyncio
import gc
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import pytest

from tequipy_devstack.servers import PostgresServer
from tequipy_platform.database.connecting import Connector


async def open_connections(postgres: PostgresServer) -> int:
    watching = await asyncpg.connect(postgres.url().replace("+asyncpg", ""))
    try:
        query = (
            "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        return int(await watching.fetchval(query))
    finally:
        await watching.close()


async def test_a_cancelled_caller_leaves_no_connection(private_postgres: PostgresServer) -> None:
    """Cancelled at any step, the caller returns at once, no connection stays open, and no error goes unretrieved."""
    unretrieved: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unretrieved.append(context))
    connect = Connector()
    for steps in range(40):
        connecting = asyncio.ensure_future(connect(private_postgres.url().replace("+asyncpg", "")))
        for _ in range(steps):
            await asyncio.sleep(0)
        if connecting.done():
            connecting.result().terminate()
        connecting.cancel()
        await asyncio.wait({connecting})
    await connect.settle(60)
    async with asyncio.timeout(60):
        while await open_connections(private_postgres):
            await asyncio.sleep(0.01)
    gc.collect()
    assert unretrieved == []


async def test_settle_waits_for_a_server_that_hangs_no_longer_than_its_limit(private_postgres: PostgresServer) -> None:
    """Closing does not wait for a handshake that never ends."""
    connect = Connector()
    private_postgres.freeze()
    url = private_postgres.url().replace("+asyncpg", "")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await connect(url, timeout=2)
    async with asyncio.timeout(60):
        await connect.settle(0.1)
        assert connect._abandoned
        await connect.settle(60)
    assert not connect._abandoned
    private_postgres.thaw()

"""The plans of the relay's statements, which run many times on one connection."""

import asyncio
from datetime import timedelta

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import text

from tequipy_platform.database import Database, DatabaseSettings, build_database
from tequipy_platform.messaging import build_unpublished_messages
from tequipy_platform.messaging.metrics import OutboxMetrics

APPLICATION = "test-plans"
SETTLED = """
insert into platform.outbox (id, task, payload, created_at, published_at, started_at, settled_at, queue, state)
select gen_random_uuid(), 'test.do', '{}', now(), now() - n * interval '1 s', now(), now(), 'default', 'done'
from generate_series(1, 20000) n
"""


async def test_statements_of_the_relay_read_no_settled_row(database: Database, database_url: str) -> None:
    """Neither the search for due, missed and postponed messages nor a measurement reads the whole table.

    PostgreSQL keeps one plan for all values of the parameters here, as it may after five executions.
    """
    async with database.engine.connect() as opened:
        connection = await opened.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(SETTLED))
        await connection.execute(text("vacuum analyze platform.outbox"))
        name = await connection.scalar(text("select quote_ident(current_database())"))
        await connection.execute(text(f"alter database {name} set plan_cache_mode = force_generic_plan"))
    before = await reads(database_url)
    async with build_database(DatabaseSettings(url=SecretStr(database_url), application_name=APPLICATION)) as used:
        messages = build_unpublished_messages(used, redelivery=timedelta(minutes=10))
        await messages.fan_out({}, 100)
        async with messages.batch(100) as batch:
            assert not batch.messages
        await messages._reset_future_times()
        await OutboxMetrics(used, {}, CollectorRegistry()).measure()
    assert await reads(database_url) == before


async def reads(database_url: str) -> int:
    """Return how many times all rows were read, after the connections of the test have ended and reported it."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        async with asyncio.timeout(10):
            while await connection.fetchval(
                "select count(*) from pg_stat_activity where application_name = $1", APPLICATION
            ):
                await asyncio.sleep(0.02)
        count: int = await connection.fetchval(
            "select seq_scan from pg_stat_user_tables where schemaname = 'platform' and relname = 'outbox'"
        )
    finally:
        await connection.close()
    return count

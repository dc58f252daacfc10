"""What operators ask the outbox with a million settled messages and 40,000 that are not."""

import re
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from tequipy_platform import MessageState
from tequipy_platform.database import Database
from tequipy_platform.messaging import MessageQuery, build_message_inspection
from tequipy_platform.messaging.metrics import OutboxMetrics

_UNSET = re.compile(r"(, )?\w+=None")
QUEUES = {"auth.send_mail": "email"}
# The unsettled messages are the oldest, so that a search from the newest finds them last.
FILL = """
insert into platform.outbox (id, task, payload, correlation_id, created_at, published_at, started_at, queue, state,
    settled_at, attempts, not_before, redeliver_at)
select uuidv7(n * interval '1 s' - interval '15 days'), task, jsonb_build_object('text', repeat('x', 100)),
    'c' || n / 3, now() + n * interval '1 s' - interval '15 days', now(), now(), queue, state,
    case when state in ('done', 'dead') then now() end, 1, now() - interval '1 hour', now() + interval '1 hour'
from generate_series({first}, {last}) n, lateral (select
    (array['auth.send_mail', 'auth.purge', 'platform.purge_messages'])[1 + n % 3] as task,
    (array['default', 'email'])[1 + n % 2] as queue,
    case when n <= 40000 then (array['pending', 'published', 'running', 'failed'])[1 + n % 4]
        when n % 1000 = 0 then 'dead' else 'done' end as state)
"""
DAY = timedelta(days=1)
SEARCHES = [
    MessageQuery(),
    MessageQuery(correlation_id="c1000"),
    MessageQuery(correlation_id="c300000"),
    MessageQuery(correlation_id="none"),
    *(MessageQuery(state=state) for state in MessageState),
    MessageQuery(task="auth.purge"),
    MessageQuery(task="none"),
    MessageQuery(task="auth.purge", state=MessageState.FAILED),
    MessageQuery(task="none", state=MessageState.DEAD),
    MessageQuery(queue="email"),
    MessageQuery(queue="none"),
    MessageQuery(older_than=14 * DAY),
    MessageQuery(older_than=99 * DAY),
    MessageQuery(newer_than=timedelta(0)),
    MessageQuery(state=MessageState.PUBLISHED, queue="email", older_than=DAY),
]


async def quickest(work: Callable[[], Awaitable[object]]) -> float:
    """Return the seconds of the quickest of three runs, because the machine may do other things too."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


@pytest.mark.prove
@pytest.mark.timeout(600)
async def test_no_question_costs_more_than_a_few_counts_of_all_rows(database: Database) -> None:
    """Each search, and a measurement of the gauges, takes less than ten counts of all rows; prints milliseconds."""
    for part in range(26):  # within the timeout of a statement
        async with database.sessions.begin() as session:
            await session.execute(text(FILL.format(first=part * 40_000 + 1, last=(part + 1) * 40_000)))
    async with database.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("vacuum analyze"))

    async def count() -> None:
        async with database.sessions() as session:
            assert await session.scalar(text("select count(state) from platform.outbox")) == 1_040_000

    inspection = build_message_inspection(database, queues=QUEUES)
    seconds = {"a count of all rows": await quickest(count)}
    for query in SEARCHES:
        seconds[repr(query)] = await quickest(partial(inspection.find, query, limit=51))
    seconds["a measurement"] = await quickest(OutboxMetrics(database, QUEUES, CollectorRegistry()).measure)
    began = time.perf_counter()
    repair = await inspection.retry(MessageQuery())
    seconds[f"a retry of {sum(repair.changed.values())} dead letters"] = time.perf_counter() - began
    print()
    for what, taken in seconds.items():
        print(f"{taken * 1000:6.0f} ms  {_UNSET.sub('', what)}")
    assert max(seconds.values()) < 10 * seconds["a count of all rows"]

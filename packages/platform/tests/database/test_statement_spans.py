"""Spans of SQL statements, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from tequipy_observability import SpanKind, entry_span
from tequipy_observability.testing import RecordedSpan, SpanRecorder, recorded_spans
from tequipy_platform.database import Database, build_database, uuid7
from tequipy_platform.messaging.models import InboxRow

from .work import outbox_add, outbox_rows, select_one, settings


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    with recorded_spans() as recorder:
        yield recorder


@pytest.fixture
async def traced(spans: SpanRecorder, database_url: str) -> AsyncIterator[Database]:  # noqa: ARG001 -- tracing comes first
    async with build_database(settings(database_url)) as database:
        await select_one(database)  # a first connection has statements of its own
        yield database


def by_name(spans: SpanRecorder) -> dict[str, RecordedSpan]:
    return {span.name: span for span in spans.spans}


async def test_each_statement_of_a_request_is_a_span(traced: Database, spans: SpanRecorder) -> None:
    """Statements and the commit are children of the request, named by operation and table, without parameters."""
    with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        await outbox_add(traced)
        await outbox_rows(traced)
    found = spans.spans
    request = found[0]
    statements = ["INSERT platform.outbox", "COMMIT", "SELECT platform.outbox"]
    assert [span.name for span in found] == ["request", "create test.do", *statements]
    assert {span.parent_id for span in found[1:]} == {request.span_id}
    insertion = by_name(spans)["INSERT platform.outbox"]
    assert insertion.kind is SpanKind.CLIENT
    assert insertion.attributes["db.system.name"] == "postgresql"
    assert insertion.attributes["db.operation.name"] == "INSERT"
    query = str(insertion.attributes["db.query.text"])
    assert query.startswith("INSERT INTO platform.outbox (")
    assert "test.do" not in str(insertion.attributes), "values are parameters"


async def test_nothing_is_recorded_outside_of_a_trace(traced: Database, spans: SpanRecorder) -> None:
    """Statements that belong to no request or task, such as polling, record nothing."""
    await outbox_add(traced)
    assert spans.spans == []


async def test_a_failed_statement_has_its_sqlstate(traced: Database, spans: SpanRecorder) -> None:
    """A span of a failed statement has the code of the server and the driver's type of error, but not its text."""
    values = {"message_id": uuid7(), "handler": "ada@example.com", "state": "no state"}
    with entry_span("request", kind=SpanKind.SERVER, traceparent=None), pytest.raises(DBAPIError):
        async with traced.sessions.begin() as session:
            await session.execute(insert(InboxRow).values(values))
    failed = by_name(spans)["INSERT platform.inbox"]
    assert failed.failed
    assert failed.attributes["db.response.status_code"] in {"23502", "23514"}  # a null, or a check
    assert "ada@example.com" not in str(spans.spans)
    assert "COMMIT" not in by_name(spans)


async def test_a_cancelled_statement_ends_its_span(traced: Database, spans: SpanRecorder) -> None:
    """A statement whose task is cancelled ends its span as failed."""
    with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        waiting = asyncio.create_task(_sleep(traced))
        async with asyncio.timeout(10):
            while not traced.engine.pool.checkedout():  # type: ignore[attr-defined]  # -- of the pool that is used
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait({waiting})
    statement = by_name(spans)["SELECT"]
    assert (statement.failed, statement.attributes["error.type"]) == (True, "asyncio.exceptions.CancelledError")


async def _sleep(database: Database) -> None:
    async with database.sessions() as session:
        await session.execute(text("select pg_sleep(30)"))


async def test_many_rows_of_one_statement_are_one_span(traced: Database, spans: SpanRecorder) -> None:
    """A statement that is executed for many rows is one span with their number."""
    with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        async with traced.engine.begin() as connection:
            many = [{"name": str(number)} for number in range(5)]
            await connection.execute(text("create temporary table things (name text) on commit drop"))
            await connection.execute(text("insert into things values (:name)"), many)
    assert by_name(spans)["INSERT things"].attributes["db.operation.batch.size"] == 5


async def test_an_engine_without_tracing_has_no_listeners(database: Database) -> None:
    """While tracing is off, statements have no events, so that they cost nothing."""
    sync_engine = database.engine.sync_engine
    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        assert not list(getattr(sync_engine.dispatch, name))
    assert "do_commit" not in vars(sync_engine.dialect)

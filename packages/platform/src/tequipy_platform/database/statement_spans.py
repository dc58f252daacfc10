"""Spans of SQL statements, from the events of our own engine (the usual instrumentation refuses SQLAlchemy 2.1)."""

import re
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import URL, Engine, PoolProxiedConnection, event
from sqlalchemy.engine.interfaces import ExceptionContext

from tequipy_observability import Span, SpanKind, span

_TABLE: Final = re.compile(r'\b(?:FROM|INTO|UPDATE)\s+([\w."]+)', re.IGNORECASE)
_SPAN: Final = "tequipy_span"


def trace_statements(engine: Engine, url: URL) -> None:
    """Record each statement and commit as a span (OpenTelemetry, database client spans).

    The text of a statement is recorded, and no parameters.
    """
    server = {
        "db.system.name": "postgresql",
        "db.namespace": url.database,
        "server.address": url.host,
        "server.port": url.port,
    }
    _StatementSpans({name: value for name, value in server.items() if value is not None}).listen(engine)


class _StatementSpans:
    """The listeners of one engine."""

    def __init__(self, server: dict[str, str | int]) -> None:
        self._server = server

    def listen(self, engine: Engine) -> None:
        """Listen to the engine's events, and wrap its commit."""
        event.listen(engine, "before_cursor_execute", self._begin)
        event.listen(engine, "after_cursor_execute", self._end)
        event.listen(engine, "handle_error", self._fail)
        # There is no event after a commit, in which the server waits for its disk and its standbys.
        do_commit = engine.dialect.do_commit

        def commit(connection: PoolProxiedConnection) -> None:
            with self._start("COMMIT", ""):
                do_commit(connection)

        setattr(engine.dialect, "do_commit", commit)  # noqa: B010 -- the type checker forbids to assign a method

    def _start(self, operation: str, table: str) -> Span:
        step = span(operation, table, kind=SpanKind.CLIENT)
        if step.recording:
            for name, value in self._server.items():
                step.set(name, value)
            step.set("db.operation.name", operation)
        return step

    def _begin(self, *arguments: Any) -> None:  # noqa: ANN401 -- of SQLAlchemy's event
        _connection, _cursor, statement, parameters, context, many = arguments
        step = self._start(*_summary(statement))
        if step.recording:
            step.set("db.query.text", statement)
            if many:
                step.set("db.operation.batch.size", len(parameters))
            setattr(context, _SPAN, step)

    def _end(self, *arguments: Any) -> None:  # noqa: ANN401 -- as above
        _connection, _cursor, _statement, _parameters, context, _many = arguments
        if (step := _taken(context)) is not None:
            step.end()

    def _fail(self, failure: ExceptionContext) -> None:
        if (step := _taken(failure.execution_context)) is None:
            return
        state = getattr(failure.original_exception, "sqlstate", None)
        if isinstance(state, str):
            step.set("db.response.status_code", state)
        step.end(failure.original_exception)


def _taken(context: Any) -> Span | None:  # noqa: ANN401 -- an execution context, to which attributes may be added
    """Return the span of a statement, once."""
    step: Span | None = getattr(context, _SPAN, None)
    if step is not None:
        delattr(context, _SPAN)
    return step


@lru_cache(maxsize=1024)
def _summary(statement: str) -> tuple[str, str]:
    """Return the operation of a statement and its first table, which name the span."""
    operation = statement.split(maxsplit=1)[0].upper() if statement.strip() else "SQL"
    table = _TABLE.search(statement)
    return operation, table[1].replace('"', "") if table else ""

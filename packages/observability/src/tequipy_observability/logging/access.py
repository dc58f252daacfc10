"""The access event: one line for each request, put together in one step."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, cast

import orjson
import structlog

from tequipy_observability._context import RequestContext
from tequipy_observability._redaction import redact_line
from tequipy_observability.logging.output import Output
from tequipy_observability.logging.rendering import MAX_LINE_BYTES, Process, context_fields, render_json

ACCESS_EVENT: Final = "http_request"
ACCESS_LOGGER: Final = "tequipy.access"
_MAX_PLAIN_LENGTH: Final = 1024
_LEVELS: Final = {level: logging.getLevelName(level) for level in (logging.DEBUG, logging.INFO, logging.ERROR)}


class AccessLog:
    """Writes access events: the same lines as structlog would, put together in one step.

    Most requests share the values of most fields, as method, route and user agent. Their JSON is remembered, and so is
    whether they have the form of a secret; only lines without such a form are put together here.
    """

    def __init__(self, process: Process, lines: Output, encoder: object, level: int) -> None:
        self._process = process
        self._lines = lines
        self._encoder = encoder
        self._level = level
        self._field = lru_cache(maxsize=4096)(_field)
        texts = (ACCESS_EVENT, ACCESS_LOGGER, process.service, process.environment, process.version)
        names = ("message", "logger", "service", "environment", "version")
        fields = [_field(name, text) for name, text in zip(names, texts, strict=True)]
        self._beginnings = {level: _join([_field("level", name), *fields]) for level, name in _LEVELS.items()}

    @property
    def is_current(self) -> bool:
        """Whether structlog still writes what `configure_logging` made it write; tests and apps may configure it."""
        processors = structlog.get_config()["processors"]
        return bool(processors) and processors[0] is self._encoder

    def write(self, level: int, context: RequestContext, *, route: str, status: int, duration_ms: float) -> None:
        """Write the event `http_request`: an error at once, others with all lines of the event loop's turn.

        Does nothing for an event below the level of the process. Only the access event has the user agent.
        """
        if level < self._level:
            return
        line = self.render(level, context, route=route, status=status, duration_ms=duration_ms)
        if level < logging.WARNING:
            self._lines.write_soon(line)
        else:
            self._lines.msg(line)

    def render(self, level: int, context: RequestContext, *, route: str, status: int, duration_ms: float) -> bytes:
        """Return the line of an event; fields of the context come before those of the event, and are not replaced."""
        line = None
        if context.route is context.task_id is context.task_name is None:
            line = self._render_quickly(level, context, route, status, duration_ms)
        if line is not None and len(line) <= MAX_LINE_BYTES:
            return line
        entry: dict[str, object] = {
            "timestamp": datetime.now(UTC),
            "level": _LEVELS[level],
            "message": ACCESS_EVENT,
            "logger": ACCESS_LOGGER,
            "service": self._process.service,
            "environment": self._process.environment,
            "version": self._process.version,
            **context_fields(context),
        }
        entry.setdefault("route", route)
        return render_json(entry | {"status": status, "duration_ms": duration_ms, "user_agent": context.user_agent})

    def _render_quickly(
        self, level: int, context: RequestContext, route: str, status: int, duration_ms: float
    ) -> bytes | None:
        """Return the line, or None if it could contain a secret."""
        correlation_id, traceparent, method, _, ip, user_agent, user_id, _, _ = context
        field = self._field
        agent = b',"user_agent":null' if user_agent is None else field("user_agent", user_agent)
        before = _join(
            (
                self._beginnings[level],
                _id_field("correlation_id", correlation_id),
                field("method", method),
                field("ip", ip),
                field("user_id", user_id),
                b"" if traceparent is None else _trace_fields(traceparent),
                field("route", route),
            )
        )
        if before is None or agent is None:
            return None
        timestamp = orjson.dumps(datetime.now(UTC), option=orjson.OPT_UTC_Z)
        duration = orjson.dumps(duration_ms)
        return b'{"timestamp":%b%b,"status":%d,"duration_ms":%b%b}' % (timestamp, before, status, duration, agent)

    def flush(self) -> None:
        """Write the lines that wait for the end of the turn."""
        self._lines.flush()


def _join(fields: Sequence[bytes | None]) -> bytes | None:
    """Return the fields in one piece, or None if one of them is None."""
    try:
        return b"".join(cast("Sequence[bytes]", fields))
    except TypeError:
        return None


def _field(name: str, value: object) -> bytes | None:
    """Return a field as JSON with a comma before it, and nothing for None.

    Returns None for a value that has the form of a secret, is no text, or is too long to be remembered.
    """
    if value is None:
        return b""
    if not isinstance(value, str) or len(value) > _MAX_PLAIN_LENGTH:
        return None
    try:
        encoded = orjson.dumps(value)
    except TypeError:  # a lone surrogate
        return None
    return b',"%b":%b' % (name.encode(), encoded) if redact_line(encoded) == encoded else None


def _id_field(name: str, value: str | None) -> bytes | None:
    """Return the same for an id, which is not remembered, because each request has another one.

    Of all forms of secrets only a JSON Web Token, which begins with `eyJ`, can have letters and digits alone.
    """
    if value is not None and value.isascii() and value.isalnum() and "eyJ" not in value:
        return b',"%b":"%b"' % (name.encode(), value.encode())
    return _field(name, value)


def _trace_fields(traceparent: str) -> bytes | None:
    _, trace_id, span_id, *_ = traceparent.split("-")
    return _join([_id_field("trace_id", trace_id), _id_field("span_id", span_id)])

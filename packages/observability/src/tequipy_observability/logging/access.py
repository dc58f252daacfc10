"""The access event: one line for each request, put together in one step."""

import logging
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

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

    Only what clients may choose is searched for secrets, each value by itself; texts that most requests share, such as
    user agents, only once.
    """

    def __init__(self, process: Process, lines: Output, encoder: object, level: int) -> None:
        self._lines = lines
        self._encoder = encoder
        self._level = level
        self._beginning = {
            "message": ACCESS_EVENT,
            "logger": ACCESS_LOGGER,
            "service": process.service,
            "environment": process.environment,
            "version": process.version,
        }
        self._is_plain = lru_cache(maxsize=4096)(_is_plain)
        self._has_plain_beginning = all(map(_is_plain, self._beginning.values()))

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
        entry: dict[str, object] = {
            "timestamp": datetime.now(UTC),
            "level": _LEVELS[level],
            **self._beginning,
            **context_fields(context),
        }
        entry.setdefault("route", route)
        entry["status"] = status
        entry["duration_ms"] = duration_ms
        entry["user_agent"] = context.user_agent
        if self._is_harmless(context, route):
            line = orjson.dumps(entry, option=orjson.OPT_UTC_Z)
            if len(line) <= MAX_LINE_BYTES:
                return line
        return render_json(entry)

    def _is_harmless(self, context: RequestContext, route: str) -> bool:
        plain = self._is_plain
        return (
            self._has_plain_beginning
            and plain(route)
            and plain(context.user_agent)
            and plain(context.ip)
            and plain(context.method)
            and plain(context.user_id)
            and _is_plain_id(context.correlation_id)
            and context.route is context.task_id is context.task_name is None
        )

    def flush(self) -> None:
        """Write the lines that wait for the end of the turn."""
        self._lines.flush()


def _is_plain_id(correlation_id: str | None) -> bool:
    """Return the same for a correlation id, which is not remembered, because each request has another one.

    Of all forms of secrets only a JSON Web Token, which begins with `eyJ`, can have letters and digits alone.
    """
    if correlation_id is not None and correlation_id.isalnum() and "eyJ" not in correlation_id:
        return len(correlation_id) <= _MAX_PLAIN_LENGTH
    return _is_plain(correlation_id)


def _is_plain(value: object) -> bool:
    """Return whether a value of a line is a text without the form of a secret, and not too long to be remembered."""
    if value is None:
        return True
    if not isinstance(value, str) or len(value) > _MAX_PLAIN_LENGTH:
        return False
    try:
        encoded = orjson.dumps(value)
    except TypeError:  # a lone surrogate
        return False
    return redact_line(encoded) == encoded

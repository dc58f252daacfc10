"""Logging: one JSON object per line on standard output, for structlog and the standard library alike."""

import atexit
import logging
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal

import structlog

from tequipy_observability._context import current_context
from tequipy_observability._redaction import redact_fields
from tequipy_observability.logging.access import AccessLog
from tequipy_observability.logging.output import Output
from tequipy_observability.logging.rendering import (
    Entry,
    Process,
    Renderer,
    context_fields,
    printable,
    render_console,
    render_json,
)

# A LogRecord's own attributes; all others come from `extra=`.
_RECORD_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def configure_logging(process: Process, *, level: str, style: Literal["json", "console"]) -> None:
    """Send structlog, stdlib logging and warnings of this process to standard output; a second call replaces it."""
    renderer = render_json if style == "json" else render_console
    lines, encoder = Output(), _Encoder(process, renderer)
    _install_access_log(AccessLog(process, lines, encoder, logging.getLevelName(level)) if style == "json" else None)
    structlog.configure(
        processors=[encoder],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=level, handlers=[_Handler(process, renderer, lines)], force=True)
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "sqlalchemy", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # The middleware writes one access event per request instead.
    logging.getLogger("uvicorn.access").propagate = False
    # At INFO and DEBUG they log complete URLs and header fields, which may hold secrets; fontTools letters of names.
    for name in ("httpx", "httpcore", "httpcore2", "hpack", "h2", "fontTools"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _entry(process: Process, *, level: str, logger: str, message: str, fields: Mapping[str, object]) -> Entry:
    """Build an entry from the process, the request context and the event's own fields."""
    entry: dict[str, object] = {
        "timestamp": datetime.now(UTC),
        "level": level.upper(),
        "message": message,
        "logger": logger,
        "service": process.service,
        "environment": process.environment,
        "version": process.version,
        **context_fields(current_context()),
    }
    # The event's fields cannot overwrite those of process and context.
    return entry | redact_fields(fields) | entry


def _failure(process: Process, logger: str, error: Exception) -> Entry:
    """Return the entry that replaces an event which cannot be rendered."""
    fields = {"error": type(error).__name__}
    return _entry(process, level="error", logger=logger, message="log_event_failed", fields=fields)


class _Encoder:
    """The only processor of structlog: turns an event dictionary into bytes."""

    def __init__(self, process: Process, renderer: Renderer) -> None:
        self._process = process
        self._renderer = renderer

    def __call__(self, _: object, method: str, event: MutableMapping[str, Any]) -> bytes:
        """Return the line of an event, or an error entry if it cannot be rendered; never raises into the program."""
        logger = self._process.service
        try:
            message, logger = event.pop("event"), str(event.pop("logger_name", logger))
            if not isinstance(message, str):
                message = str(printable(message))
            if error := event.pop("exc_info", None):
                event["exception"] = _formatted(error)
            return self._renderer(_entry(self._process, level=method, logger=logger, message=message, fields=event))
        except Exception as error:  # noqa: BLE001 -- logging must never end the request that logs
            return self._renderer(_failure(self._process, logger, error))


_access_log: AccessLog | None = None


def _install_access_log(log: AccessLog | None) -> None:
    global _access_log  # noqa: PLW0603 -- set when logging is configured
    _access_log = log
    atexit.unregister(_flush_access_log)  # once, however often logging is configured
    atexit.register(_flush_access_log)


def _flush_access_log() -> None:
    if _access_log is not None:
        _access_log.flush()


def access_log() -> AccessLog | None:
    """Return what writes the access events of this process; None where structlog must, because it was configured so."""
    return _access_log if _access_log is not None and _access_log.is_current else None


class _Handler(logging.Handler):
    """Writes records of stdlib logging as the same kind of lines."""

    def __init__(self, process: Process, renderer: Renderer, lines: Output) -> None:
        super().__init__()
        self._process = process
        self._renderer = renderer
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or an error entry if it cannot be rendered; never raises into the program."""
        try:
            fields = {name: value for name, value in vars(record).items() if name not in _RECORD_ATTRIBUTES}
            if record.exc_info:
                fields["exception"] = _formatted(record.exc_info)
            entry = _entry(
                self._process, level=record.levelname, logger=record.name, message=record.getMessage(), fields=fields
            )
            line = self._renderer(entry)
        except Exception as error:  # noqa: BLE001 -- `handleError` would print the arguments, with secrets, to stderr
            line = self._renderer(_failure(self._process, record.name, error))
        self._lines.msg(line)


_ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


def _formatted(error: BaseException | _ExcInfo | object) -> str:
    """Return a traceback without the values of local variables."""
    if isinstance(error, BaseException):
        return "".join(traceback.format_exception(error))
    if isinstance(error, tuple):
        return "".join(traceback.format_exception(*error))
    return traceback.format_exc()

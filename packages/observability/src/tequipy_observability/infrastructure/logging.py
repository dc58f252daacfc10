"""Logs: one JSON object a line on standard output, whoever wrote the event."""

import logging
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal

import orjson
import structlog

from tequipy_observability.domain.context import RequestContext, current_context
from tequipy_observability.infrastructure.redaction import redact_fields, redact_line

MAX_LINE_BYTES: Final = 16 * 1024
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
# What a LogRecord has of itself; everything else on it came by `extra=`.
_RECORD_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
# Of the context: the access event alone says what the client calls itself, and the trace is told by its ids.
_UNSAID: Final = frozenset({"traceparent", "user_agent"})

Entry = Mapping[str, object]
Renderer = Callable[[Entry], bytes]


@dataclass(frozen=True, slots=True)
class Process:
    """What every line says of the process that wrote it."""

    service: str
    environment: str
    version: str


def configure_logging(process: Process, *, level: str, style: Literal["json", "console"]) -> None:
    """Send structlog, stdlib logging and warnings of this process to standard output; calling it again replaces it."""
    renderer = render_json if style == "json" else render_console
    lines = _Output()
    structlog.configure(
        processors=[_Encoder(process, renderer)],
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
    # The middleware writes the one access event of a request.
    logging.getLogger("uvicorn.access").propagate = False
    # It tells of each call with its whole URL, query and all; whoever makes the call says what may be said.
    logging.getLogger("httpx").setLevel(logging.WARNING)


class _Output:
    """Standard output as it is at the moment, in whole lines.

    A line that cannot be written is dropped: the stream may be absent (`None`, when the process was started with a
    closed standard output), closed, full, without a reader, or an object that somebody put in its place.
    """

    def msg(self, line: bytes) -> None:
        stream = sys.stdout
        if stream is None:
            return
        try:
            # One write: the buffer's own lock keeps lines of different threads apart.
            buffer = getattr(stream, "buffer", None)
            if buffer is None:  # text only, as io.StringIO
                stream.write(line.decode("utf-8", "backslashreplace") + "\n")
                stream.flush()
                return
            buffer.write(line + b"\n")
            buffer.flush()
        except Exception:  # noqa: BLE001, S110 -- logging must never end the request that logs
            pass

    debug = info = warning = warn = error = critical = fatal = exception = log = msg  # as structlog calls its loggers


def render_json(entry: Entry) -> bytes:
    """Return the entry as one line of JSON of at most 16 KiB, without what looks like a secret."""
    try:
        line = orjson.dumps(entry, default=repr, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        # Lone surrogates, integers beyond 64 bits, a repr that fails: shown as well as can be.
        line = orjson.dumps({_printable(name): _printable(value) for name, value in entry.items()}, option=_OPTIONS)
    line = redact_line(line)
    return line if len(line) <= MAX_LINE_BYTES else _within_limit(line)


def render_console(entry: Entry) -> bytes:
    """Return the entry as a line for a person: time, level, message, then the rest as `name=value`."""
    fields = orjson.loads(render_json(entry))
    moment, level, message = fields.pop("timestamp"), fields.pop("level"), fields.pop("message")
    stack = fields.pop("exception", None)
    for name in ("service", "environment", "version", "trace_id", "span_id"):
        fields.pop(name, None)
    rest = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    line = f"{moment[11:19]} {level:<8} {_one_line(message)}  {_one_line(rest)}"
    return "\n".join(filter(None, [line, stack])).encode("utf-8", "backslashreplace")


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _within_limit(line: bytes) -> bytes:
    """Shorten the longest values until the line fits, and say how long it was; what it begins with stays longest."""
    entry, limit, length = orjson.loads(line), 8192, len(line)
    while len(line) > MAX_LINE_BYTES:
        if limit < 64:  # many fields, not long ones  # noqa: PLR2004 -- below this a value says nothing
            entry = dict(list(entry.items())[: len(entry) // 2])
        short = {name[:256]: _shortened(value, limit) for name, value in entry.items()}
        line = orjson.dumps(short | {"truncated": length})
        limit = max(limit // 2, 32)
    return line


def _shortened(value: object, limit: int) -> object:
    if isinstance(value, dict | list):
        value = orjson.dumps(value).decode()
    return f"{value[:limit]}…" if isinstance(value, str) and len(value) > limit else value


def _printable(value: object) -> object:
    if value is None or isinstance(value, bool | float | datetime):
        return value
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:  # noqa: BLE001 -- somebody's repr: whatever it raises, the line is still written
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def _entry(process: Process, *, level: str, logger: str, message: str, fields: Mapping[str, object]) -> Entry:
    """Put a line together: what every line has, what is known of the request, what the event says."""
    entry: dict[str, object] = {
        "timestamp": datetime.now(UTC),
        "level": level.upper(),
        "message": message,
        "logger": logger,
        "service": process.service,
        "environment": process.environment,
        "version": process.version,
    }
    context = current_context()
    known = zip(RequestContext._fields, context, strict=True)
    entry |= {name: value for name, value in known if value is not None and name not in _UNSAID}
    if context.traceparent is not None:  # version-trace-parent-flags, W3C Trace Context, section 3.2
        _, entry["trace_id"], entry["span_id"], *_ = context.traceparent.split("-")
    # An event cannot overwrite what the line says of itself.
    return entry | redact_fields(fields) | entry


def _failure(process: Process, logger: str, error: Exception) -> Entry:
    """Return the entry in place of an event that cannot be rendered."""
    fields = {"error": type(error).__name__}
    return _entry(process, level="error", logger=logger, message="log_event_failed", fields=fields)


class _Encoder:
    """The one processor of structlog: event dictionary to bytes."""

    def __init__(self, process: Process, renderer: Renderer) -> None:
        self._process = process
        self._renderer = renderer

    def __call__(self, _: object, method: str, event: MutableMapping[str, Any]) -> bytes:
        """Return the line of an event; one that cannot be rendered says so instead of raising into the program."""
        logger = self._process.service
        try:
            message, logger = event.pop("event"), str(event.pop("logger_name", logger))
            if not isinstance(message, str):
                message = str(_printable(message))
            if error := event.pop("exc_info", None):
                event["exception"] = _formatted(error)
            return self._renderer(_entry(self._process, level=method, logger=logger, message=message, fields=event))
        except Exception as error:  # noqa: BLE001 -- as _Handler.emit: logging must never end the request that logs
            return self._renderer(_failure(self._process, logger, error))


class _Handler(logging.Handler):
    """Brings what comes through stdlib logging into the same lines."""

    def __init__(self, process: Process, renderer: Renderer, lines: _Output) -> None:
        super().__init__()
        self._process = process
        self._renderer = renderer
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; one that cannot be rendered says so instead of raising into the program."""
        try:
            fields = {name: value for name, value in vars(record).items() if name not in _RECORD_ATTRIBUTES}
            if record.exc_info:
                fields["exception"] = _formatted(record.exc_info)
            entry = _entry(
                self._process, level=record.levelname, logger=record.name, message=record.getMessage(), fields=fields
            )
            line = self._renderer(entry)
        except Exception as error:  # noqa: BLE001 -- `handleError` would print the arguments, secrets and all, to stderr
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

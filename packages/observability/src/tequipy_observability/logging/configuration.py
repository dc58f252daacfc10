"""Logging: one JSON object per line on standard output, for structlog and the standard library alike."""

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

from tequipy_observability._context import RequestContext, current_context
from tequipy_observability._redaction import redact_fields, redact_line

MAX_LINE_BYTES: Final = 16 * 1024
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
# A LogRecord's own attributes; all others come from `extra=`.
_RECORD_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
# Not repeated on every line: only the access event has the user agent, and trace and span id are fields of their own.
_OMITTED: Final = frozenset({"traceparent", "user_agent"})

Entry = Mapping[str, object]
Renderer = Callable[[Entry], bytes]


@dataclass(frozen=True, slots=True)
class Process:
    """Fields that every line has, about the process that wrote it."""

    service: str
    environment: str
    version: str


def configure_logging(process: Process, *, level: str, style: Literal["json", "console"]) -> None:
    """Send structlog, stdlib logging and warnings of this process to standard output; a second call replaces it."""
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
    # The middleware writes one access event per request instead.
    logging.getLogger("uvicorn.access").propagate = False
    # At INFO and DEBUG they log complete URLs and header fields, which may hold secrets; fontTools letters of names.
    for name in ("httpx", "httpcore", "httpcore2", "hpack", "h2", "fontTools"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Output:
    """The current standard output, written in whole lines.

    A line that cannot be written is dropped. The stream may be `None` (the process was started with standard output
    closed), closed, full, a pipe without a reader, or an object that replaced it.
    """

    def msg(self, line: bytes) -> None:
        stream = sys.stdout
        if stream is None:
            return
        try:
            # One write per line, because the buffer's lock then keeps lines of different threads apart.
            buffer = getattr(stream, "buffer", None)
            if buffer is None:  # a text stream, such as io.StringIO
                stream.write(line.decode("utf-8", "backslashreplace") + "\n")
                stream.flush()
                return
            buffer.write(line + b"\n")
            buffer.flush()
        except Exception:  # noqa: BLE001, S110 -- logging must never end the request that logs
            pass

    debug = info = warning = warn = error = critical = fatal = exception = log = msg  # structlog calls these methods


def render_json(entry: Entry) -> bytes:
    """Return the entry as one line of JSON of at most 16 KiB, with secrets redacted."""
    try:
        line = orjson.dumps(entry, default=repr, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        # Lone surrogates, integers over 64 bits, or a repr that fails: such values are shown as text.
        line = orjson.dumps({_printable(name): _printable(value) for name, value in entry.items()}, option=_OPTIONS)
    line = redact_line(line)
    return line if len(line) <= MAX_LINE_BYTES else _within_limit(line)


def render_console(entry: Entry) -> bytes:
    """Return the entry as a line for people: time, level, message, then the other fields as `name=value`."""
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
    """Shorten the longest values until the line fits, and add its original length; the first fields lose least."""
    entry, limit, length = orjson.loads(line), 8192, len(line)
    while len(line) > MAX_LINE_BYTES:
        if limit < 64:  # there are many fields, not long ones  # noqa: PLR2004 -- a shorter value would be useless
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
    except Exception as error:  # noqa: BLE001 -- a failing repr must not prevent the line
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


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
    }
    context = current_context()
    known = zip(RequestContext._fields, context, strict=True)
    entry |= {name: value for name, value in known if value is not None and name not in _OMITTED}
    if context.traceparent is not None:  # version-trace-parent-flags, W3C Trace Context, section 3.2
        _, entry["trace_id"], entry["span_id"], *_ = context.traceparent.split("-")
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
                message = str(_printable(message))
            if error := event.pop("exc_info", None):
                event["exception"] = _formatted(error)
            return self._renderer(_entry(self._process, level=method, logger=logger, message=message, fields=event))
        except Exception as error:  # noqa: BLE001 -- logging must never end the request that logs
            return self._renderer(_failure(self._process, logger, error))


class _Handler(logging.Handler):
    """Writes records of stdlib logging as the same kind of lines."""

    def __init__(self, process: Process, renderer: Renderer, lines: _Output) -> None:
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

"""Lines of logs: their fields, and the form in which they are written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from tequipy_observability._context import RequestContext
from tequipy_observability._redaction import redact_line

MAX_LINE_BYTES: Final = 16 * 1024
_CONTEXT_FIELDS: Final = ("correlation_id", "method", "route", "ip", "user_id", "task_id", "task_name")
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z

Entry = Mapping[str, object]
Renderer = Callable[[Entry], bytes]


@dataclass(frozen=True, slots=True)
class Process:
    """Fields that every line has, about the process that wrote it."""

    service: str
    environment: str
    version: str


def context_fields(context: RequestContext) -> dict[str, object]:
    """Return the fields of a line that tell the request or task, as far as they are known.

    Not repeated on every line: only the access event has the user agent, and trace and span id are fields of their own.
    """
    fields = {name: value for name in _CONTEXT_FIELDS if (value := getattr(context, name)) is not None}
    if context.traceparent is not None:  # version-trace-parent-flags, W3C Trace Context, section 3.2
        _, fields["trace_id"], fields["span_id"], *_ = context.traceparent.split("-")
    return fields


def render_json(entry: Entry) -> bytes:
    """Return the entry as one line of JSON of at most 16 KiB, with secrets redacted."""
    try:
        line = orjson.dumps(entry, default=repr, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        # Lone surrogates, integers over 64 bits, or a repr that fails: such values are shown as text.
        line = orjson.dumps({printable(name): printable(value) for name, value in entry.items()}, option=_OPTIONS)
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


def printable(value: object) -> object:
    """Return a value that JSON knows as it is, and the repr of any other one, without lone surrogates."""
    if value is None or isinstance(value, bool | float | datetime):
        return value
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:  # noqa: BLE001 -- a failing repr must not prevent the line
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()

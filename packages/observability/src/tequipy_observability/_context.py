"""The request context: correlation id, trace, user and other facts about the running request, in a context variable."""

import re
from contextvars import ContextVar
from random import randbytes
from typing import Final, NamedTuple

CORRELATION_HEADER: Final = "X-Correlation-ID"
"""The header that carries the correlation id over HTTP and in mails."""

MESSAGE_CORRELATION_HEADER: Final = "tequipy_correlation_id"
"""The header of messages with the correlation id; Celery overwrites `correlation_id` with the message's id."""

TRACE_HEADER: Final = "traceparent"
"""The header that carries the trace over HTTP and in messages (W3C Trace Context)."""

_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
# W3C Trace Context, section 3.2: a version after 00 may append fields; all-zero ids and version ff are invalid.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

_TRACEPARENT_MAX_LENGTH: Final = 512


class RequestContext(NamedTuple):
    """Facts about the running request or task; `None` for a fact that does not apply or is not known yet."""

    # A named tuple, because one is created per request and a frozen dataclass takes three times as long.
    correlation_id: str | None = None
    traceparent: str | None = None
    method: str | None = None
    route: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    user_id: str | None = None
    task_id: str | None = None
    task_name: str | None = None


_POSITIONS: Final = {name: position for position, name in enumerate(RequestContext._fields)}
_TRACEPARENT_POSITION: Final = _POSITIONS["traceparent"]
_EMPTY: Final = RequestContext()
_context: ContextVar[RequestContext] = ContextVar("tequipy_request_context", default=_EMPTY)


def current_context() -> RequestContext:
    """Return the context of the running request or task, or an empty one outside of both."""
    return _context.get()


class request_context:  # noqa: N801 -- reads as a verb: `with request_context(context)`; a generator costs three times as much
    """Run a block with `context`, and restore the previous one afterwards."""

    __slots__ = ("_given", "_token")

    def __init__(self, context: RequestContext) -> None:
        self._given = context

    def __enter__(self) -> RequestContext:
        self._token = _context.set(self._given)
        return self._given

    def __exit__(self, *_: object) -> None:
        _context.reset(self._token)


def bind_context(**fields: str | None) -> None:
    """Set fields that became known while the request runs, such as `user_id` after authentication.

    They last to the end of the enclosing `request_context`. Raises `ValueError` for a name that `RequestContext` lacks.
    """
    # A list of the values, because `_replace` takes twice as long, and this runs for each request with a user.
    values = [*_context.get()]
    for name, value in fields.items():
        position = _POSITIONS.get(name)
        if position is None:
            raise ValueError(f"RequestContext has no field {name!r}")
        values[position] = value
    _context.set(RequestContext._make(values))


def replace_traceparent(traceparent: str | None) -> None:
    """Set the trace alone; unlike `bind_context` it is called for each span, and checks no names."""
    values = [*_context.get()]
    values[_TRACEPARENT_POSITION] = traceparent
    _context.set(RequestContext._make(values))


def new_correlation_id() -> str:
    """Return a new correlation id of 32 hexadecimal characters."""
    return randbytes(16).hex()  # noqa: S311 -- it must be unique, not secret


def accept_correlation_id(offered: str | None) -> str:
    """Return the offered id if it matches `[A-Za-z0-9._-]{1,128}`, a new one otherwise."""
    if offered is not None and _CORRELATION_ID.fullmatch(offered):
        return offered
    return new_correlation_id()


def accept_traceparent(offered: str | None) -> str | None:
    """Return the offered `traceparent` if it is valid (W3C Trace Context, section 3.2), `None` otherwise."""
    if offered is not None and len(offered) <= _TRACEPARENT_MAX_LENGTH and _TRACEPARENT.fullmatch(offered):
        return offered
    return None

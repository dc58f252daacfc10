"""The request context: who is asking, as part of which chain of causes, carried by one context variable."""

import re
from contextvars import ContextVar
from random import randbytes
from typing import Final, NamedTuple

CORRELATION_HEADER: Final = "X-Correlation-ID"
"""The header that carries the correlation id over HTTP, into tasks and onto mails."""

_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
# W3C Trace Context, section 3.2: a version after 00 may append fields; all-zero ids and version ff are invalid.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

_TRACEPARENT_MAX_LENGTH: Final = 512


class RequestContext(NamedTuple):
    """Facts about the request or task that is running; `None` where a fact does not apply or is not yet known."""

    # A named tuple, for one is made at each request: a frozen dataclass takes three times as long.
    correlation_id: str | None = None
    traceparent: str | None = None
    method: str | None = None
    route: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    user_id: str | None = None
    task_id: str | None = None
    task_name: str | None = None


_NOTHING_KNOWN: Final = RequestContext()
_context: ContextVar[RequestContext] = ContextVar("tequipy_request_context", default=_NOTHING_KNOWN)


def current_context() -> RequestContext:
    """Return the context of the running request or task; an empty one outside of both."""
    return _context.get()


class request_context:  # noqa: N801 -- read as a verb: `with request_context(context)`; a generator costs three times as much
    """Run a block under `context`; the previous one is back afterwards, whatever happened."""

    __slots__ = ("_given", "_token")

    def __init__(self, context: RequestContext) -> None:
        self._given = context

    def __enter__(self) -> RequestContext:
        self._token = _context.set(self._given)
        return self._given

    def __exit__(self, *_: object) -> None:
        _context.reset(self._token)


def bind_context(**facts: str | None) -> None:
    """Add facts that became known while the request runs, as `user_id` after authentication.

    Lasts to the end of the enclosing `request_context`. Raises `ValueError` for a name that `RequestContext` lacks.
    """
    _context.set(_context.get()._replace(**facts))


def new_correlation_id() -> str:
    """Return a fresh correlation id: 32 hexadecimal characters."""
    return randbytes(16).hex()  # noqa: S311 -- to be told apart, not to be kept secret


def accept_correlation_id(offered: str | None) -> str:
    """Return the offered id when it matches `[A-Za-z0-9._-]{1,128}`, a fresh one otherwise."""
    if offered is not None and _CORRELATION_ID.fullmatch(offered):
        return offered
    return new_correlation_id()


def accept_traceparent(offered: str | None) -> str | None:
    """Return the offered `traceparent` when it is valid (W3C Trace Context, section 3.2), `None` otherwise."""
    if offered is not None and len(offered) <= _TRACEPARENT_MAX_LENGTH and _TRACEPARENT.fullmatch(offered):
        return offered
    return None

"""What a request body may weigh and how deep its JSON may go, decided before anything parses it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message as Headers
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import RouteTable
from tequipy_platform.api.cookies import set_cookies_aside
from tequipy_platform.api.problems import BodyTooLarge, MalformedBody
from tequipy_platform.domain.events import JSON
from tequipy_platform.domain.exceptions import Invalid, NotFound

_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string; the closing quote is optional, so that a string without end is one match and not a million tries."""

_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_NOT_MEMBERS: Final = bytes(set(range(256)) - set(b"{}:"))
_INNERMOST: Final = re.compile(rb"\{:*\}")

MOST_MEMBERS: Final = 1000
"""Members that an object of a JSON body may have: each unknown one costs the event loop microseconds to refuse."""

_CONTROL: Final = re.compile("[\0-\x1f\x7f-\x9f]")
"""Unicode category Cc."""

_LONGEST_LENGTH: Final = 18
"""Digits of a length that is read as a number at all."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes that a body may have where no `wire_body_limit` says otherwise, and levels that its JSON may nest."""

    size: int = 1024 * 1024
    depth: int = 64


def wire_body_limit(app: FastAPI, size: int, *endpoints: object) -> None:
    """Have bodies for the routes of these endpoints refused beyond `size` bytes (413 `body_too_large`).

    Has no effect unless `wire_errors` is called too, before or after.
    """
    body_sizes(app).update(dict.fromkeys(endpoints, size))


def body_sizes(app: FastAPI) -> dict[object, int]:
    """Return the limits that endpoints have been given."""
    if not hasattr(app.state, "body_sizes"):
        app.state.body_sizes = {}
    sizes: dict[object, int] = app.state.body_sizes
    return sizes


class LimitBodies:
    """Reads the body up to its limit, looks at it, and hands it on as one message; looks at path and query too."""

    def __init__(self, app: ASGIApp, limits: BodyLimits, *, routes: RouteTable, sizes: Mapping[object, int]) -> None:
        self._app = app
        self._limits = limits
        self._routes = routes
        self._sizes = sizes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises `NotFound`, `Invalid`, `BodyTooLarge` or `MalformedBody` for `CatchErrors`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _check_address(scope)
        set_cookies_aside(scope)
        # Of a header that was sent twice the first counts, as for the framework behind us.
        headers: dict[bytes, bytes] = dict(reversed(scope.get("headers", ())))
        # HTTP/1.1: a request without either header has no body (RFC 9112, section 6.3).
        if headers.keys().isdisjoint({b"content-length", b"transfer-encoding"}):
            await self._app(scope, receive, send)
            return
        limit = self._sizes.get(self._routes.match(scope).endpoint, self._limits.size)
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > _LONGEST_LENGTH or int(length) > limit):
            raise BodyTooLarge
        body, last = await _read(receive, limit)
        replay: list[Message] = [last]  # a client that went away
        if last["type"] == "http.request":
            if is_json(headers.get(b"content-type", b"").decode("latin-1")):
                check_json(body, self._limits.depth)
            replay = [{**last, "body": body}]

        async def receive_again() -> Message:
            return replay.pop() if replay else await receive()

        await self._app(scope, receive_again, send)


def _check_address(scope: Scope) -> None:
    """Raise `NotFound` for a control character in the path, and `Invalid` for NUL, which PostgreSQL cannot keep.

    The pattern of a route also fits a path with a line feed at its end, and a log or a proxy may read such a path
    otherwise than we do. The server has replaced half characters already.
    """
    if _CONTROL.search(scope["path"]):
        raise NotFound
    if b"%00" in scope["query_string"]:
        fault: JSON = {"pointer": "", "code": "invalid_characters", "detail": "The query holds NUL."}
        raise Invalid(errors=[fault])


async def _read(receive: Receive, limit: int) -> tuple[bytes, Message]:
    """Return the whole body and the last message: its end, or `http.disconnect`."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks), message


def is_json(content_type: str) -> bool:
    """Tell whether a media type is JSON (`application/json`, `application/problem+json`)."""
    headers = Headers()
    headers["content-type"] = content_type or "application/octet-stream"
    subtype = headers.get_content_subtype()
    return headers.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def check_json(body: bytes, depth: int) -> None:
    """Raise `MalformedBody` for JSON that is no RFC 8259 or UTF-8, is nested too deeply, or has an object too large.

    No RFC 8259 are UTF-16 and UTF-32 (they hold NUL bytes), `NaN` and `Infinity`, which Python's parser would take; the
    rest of the grammar is left to the parser. Takes time linear in the length of the body.
    """
    bare = _STRINGS.sub(b"", body)
    if b"\0" in body or b"NaN" in bare or b"Infinity" in bare:
        raise MalformedBody
    brackets = bare.translate(None, _NOT_BRACKETS)
    for _ in range(depth):
        if not brackets:
            break
        # Each round takes away the innermost level, at the speed of C.
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise MalformedBody
    if bare.count(b":") > MOST_MEMBERS:
        _check_members(bare, depth)


def _check_members(bare: bytes, depth: int) -> None:
    """Raise `MalformedBody` for an object of too many members, in JSON without its strings: a colon is a member."""
    members = bare.translate(None, _NOT_MEMBERS)
    too_many = b"{" + b":" * (MOST_MEMBERS + 1)
    for _ in range(depth + 1):
        if too_many in members:  # once what is nested in an object has gone, its colons stand together
            raise MalformedBody
        members = _INNERMOST.sub(b"", members)

"""Limits of request bodies (size, depth and members of JSON), checked before anything parses them."""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from email.message import Message as Headers
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from tequipy_observability.api import Exchange, Stage
from tequipy_platform._errors import DomainError, Invalid, NotFound, Unavailable
from tequipy_platform._events import JSON
from tequipy_platform.web.cookies import hide_cookies
from tequipy_platform.web.problems import BodyTooLarge, MalformedBody, problem_response

_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string; the closing quote is optional, so that an unterminated string is one match and not a million."""

_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_NOT_MEMBERS: Final = bytes(set(range(256)) - set(b"{}:"))
_INNERMOST: Final = re.compile(rb"\{:*\}")

MAX_MEMBERS: Final = 1000
"""Members of one object in a JSON body; refusing an unknown member costs the event loop microseconds."""

_CONTROL: Final = re.compile("[\0-\x1f\x7f-\x9f]")
"""Unicode category Cc."""

_ANNOUNCE_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
_ANNOUNCING_VERSIONS: Final = frozenset({"1.0", "1.1"})

_MAX_LENGTH_DIGITS: Final = 18
"""Digits of a Content-Length that is converted to a number; a longer one is too large in any case."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The default size limit of a body in bytes, and the nesting limit of its JSON."""

    size: int = 1024 * 1024
    depth: int = 64


def wire_body_limit(app: FastAPI, size: int, *endpoints: object) -> None:
    """Refuse bodies over `size` bytes on the routes of these endpoints (413 `body_too_large`).

    Has no effect without `LimitBodies` in the app's pipeline.
    """
    body_sizes(app).update(dict.fromkeys(endpoints, size))


def body_sizes(app: FastAPI) -> dict[object, int]:
    """Return the size limits by endpoint."""
    if not hasattr(app.state, "body_sizes"):
        app.state.body_sizes = {}
    sizes: dict[object, int] = app.state.body_sizes
    return sizes


class LimitBodies(Stage):
    """Reads a body up to its limit, checks it, and passes it on as one message; checks path and query too.

    It hides the cookies from the framework, so that only `read_cookie` finds them.
    """

    def __init__(self, limits: BodyLimits | None = None) -> None:
        self._limits = limits or BodyLimits()

    def before(self, exchange: Exchange) -> Response | Awaitable[Response | None] | None:
        """Answer a request whose path, query or body is refused."""
        scope = exchange.scope
        try:
            _check_address(scope)
        except DomainError as error:
            return problem_response(error)
        names = {name for name, _ in scope["headers"]}
        if b"cookie" in names:
            hide_cookies(scope)
        # HTTP/1.1: a request without either header has no body (RFC 9112, section 6.3); later versions need neither.
        if names.isdisjoint(_ANNOUNCE_BODY) and scope.get("http_version", "1.1") in _ANNOUNCING_VERSIONS:
            return None
        return self._check_body(exchange)

    async def _check_body(self, exchange: Exchange) -> Response | None:
        try:
            exchange.receive = await self._read_and_check(exchange)
        except DomainError as error:
            return problem_response(error)
        except asyncio.CancelledError:
            await exchange.answer(problem_response(Unavailable()))  # the server is shutting down
            raise
        return None

    async def _read_and_check(self, exchange: Exchange) -> Receive:
        """Return a function that returns the whole body as one message; raises `BodyTooLarge` or `MalformedBody`."""
        receive = exchange.receive
        # Of a header that was sent twice the first one counts, as in Starlette.
        headers: dict[bytes, bytes] = dict(reversed(exchange.scope["headers"]))
        limit = body_sizes(exchange.app).get(exchange.route.endpoint, self._limits.size)
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > _MAX_LENGTH_DIGITS or int(length) > limit):
            raise BodyTooLarge
        body, last = await _read(receive, limit)
        replay: list[Message] = [last]  # the client disconnected
        if last["type"] == "http.request":
            if is_json(headers.get(b"content-type", b"").decode("latin-1")):
                check_json(body, self._limits.depth)
            replay = [{**last, "body": body}]

        async def receive_again() -> Message:
            return replay.pop() if replay else await receive()

        return receive_again


def _check_address(scope: Scope) -> None:
    """Raise `NotFound` for a control character in the path, and `Invalid` for NUL in the query.

    A route's pattern also matches a path that ends in a line feed, which logs and proxies may read differently.
    PostgreSQL cannot store NUL. The server has replaced lone surrogates already.
    """
    if _CONTROL.search(scope["path"]):
        raise NotFound
    if b"%00" in scope["query_string"]:
        fault: JSON = {"pointer": "", "code": "invalid_characters", "detail": "The query holds NUL."}
        raise Invalid(errors=[fault])


async def _read(receive: Receive, limit: int) -> tuple[bytes, Message]:
    """Return the whole body and the last message, which is its end or `http.disconnect`."""
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
    """Return whether a media type is JSON (`application/json`, `application/problem+json`)."""
    headers = Headers()
    headers["content-type"] = content_type or "application/octet-stream"
    subtype = headers.get_content_subtype()
    return headers.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def check_json(body: bytes, depth: int) -> None:
    """Raise `MalformedBody` for JSON that is not RFC 8259 in UTF-8, is nested too deeply, or has too large an object.

    This refuses UTF-16 and UTF-32 (they contain NUL bytes), `NaN` and `Infinity`, which Python's parser would accept;
    the parser checks the rest of the grammar. Takes time linear in the length of the body.
    """
    bare = _STRINGS.sub(b"", body)
    if b"\0" in body or b"NaN" in bare or b"Infinity" in bare:
        raise MalformedBody
    brackets = bare.translate(None, _NOT_BRACKETS)
    for _ in range(depth):
        if not brackets:
            break
        # Each round removes the innermost level with the speed of C.
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise MalformedBody
    if bare.count(b":") > MAX_MEMBERS:
        _check_members(bare, depth)


def _check_members(bare: bytes, depth: int) -> None:
    """Raise `MalformedBody` for an object of too many members; in JSON without strings each colon is a member."""
    members = bare.translate(None, _NOT_MEMBERS)
    too_many = b"{" + b":" * (MAX_MEMBERS + 1)
    for _ in range(depth + 1):
        if too_many in members:  # after the objects inside an object are removed, its colons are adjacent
            raise MalformedBody
        members = _INNERMOST.sub(b"", members)

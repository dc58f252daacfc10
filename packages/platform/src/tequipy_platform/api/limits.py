"""What a request body may weigh and how deep its JSON may go, decided before anything parses it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message as Headers
from types import MappingProxyType
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_platform.api.cookies import set_cookies_aside
from tequipy_platform.api.problems import BodyTooLarge, MalformedBody
from tequipy_platform.domain.events import JSON
from tequipy_platform.domain.exceptions import Invalid

_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string; the closing quote is optional, so that a string without end is one match and not a million tries."""

_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_NOT_MEMBERS: Final = bytes(set(range(256)) - set(b"{}:"))
_INNERMOST: Final = re.compile(rb"\{:*\}")

MOST_MEMBERS: Final = 1000
"""Members that an object of a JSON body may have: each unknown one costs the event loop microseconds to refuse."""

_LONGEST_LENGTH: Final = 18
"""Digits of a length that is read as a number at all."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes that a body may have, tighter below some paths, and levels that its JSON may nest."""

    size: int = 1024 * 1024
    size_below: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"/api/v1/auth": 64 * 1024}))
    depth: int = 64

    def size_at(self, path: str) -> int:
        """Return the limit for a path."""
        return next(
            (size for prefix, size in self.size_below.items() if f"{path}/".startswith(f"{prefix}/")), self.size
        )


class LimitBodies:
    """Reads the body up to its limit, looks at it, and hands it on as one message; looks at path and query too."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises `Invalid`, `BodyTooLarge` or `MalformedBody`, which `CatchErrors` answers."""
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
        limit = self._limits.size_at(scope["path"])
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
    """Raise `Invalid` for NUL, which PostgreSQL cannot keep; the server has replaced half characters already."""
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        fault: JSON = {"pointer": "", "code": "invalid_characters", "detail": "Path or query hold NUL."}
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

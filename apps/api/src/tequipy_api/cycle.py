"""One request and its response on a connection of `tequipy_api.protocol`."""

import asyncio
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

from tequipy_platform import DomainError
from tequipy_platform.web import RATE_LIMIT_POLICY_HEADER

_NO_BODY: Final = frozenset({204, 304})
_REPEATED: Final = frozenset(
    {
        b"cache-control",
        b"content-security-policy",
        b"content-type",
        b"date",
        RATE_LIMIT_POLICY_HEADER.lower().encode(),
        b"referrer-policy",
        b"strict-transport-security",
        b"vary",
        b"x-content-type-options",
    }
)
"""Names of header fields of which many responses have the same, and none is secret: their lines are remembered."""


class Flow(FlowControl):
    """uvicorn's flow control, extended: while `held` is set, reading stays paused."""

    held = False

    def resume_reading(self) -> None:
        """Resume reading, unless requests that were read already are still queued."""
        if not self.held:
            super().resume_reading()


class LastResponseTransport:
    """The transport of the last response on a connection: `close` calls `linger` instead."""

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = linger


def _encode_once(name: bytes, value: bytes) -> bytes:
    """Return the line of a header field; raises `RuntimeError` for characters that would end the line or the name."""
    if HEADER_RE.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    if HEADER_VALUE_RE.search(value):
        raise RuntimeError("Invalid HTTP header value.")
    return b"%b: %b\r\n" % (name.lower(), value)


_encode = lru_cache(maxsize=512)(_encode_once)


class Cycle(RequestResponseCycle):
    """A request and its response; an error of the body is raised in the app, which responds to it as usual."""

    failure: DomainError | None = None

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the response as uvicorn does, with less work for each header field."""
        if self.flow.write_paused or self.disconnected:
            await super().send(message)
        elif message["type"] == "http.response.start" and not self.response_started:
            self._send_head(message["status"], message.get("headers", ()))
        elif (
            message["type"] == "http.response.body"
            and self.response_started
            and not self.response_complete
            and self.chunked_encoding is False
            and not message.get("more_body", False)
            and len(message.get("body", b"")) == self.expected_content_length
            and self.scope["method"] != "HEAD"
        ):
            self._send_last(message.get("body", b""))
        else:
            await super().send(message)

    def _send_head(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        closes = False
        for field in (*self.default_headers, *fields):
            name, value = field
            if name in _REPEATED:
                lines.append(_encode(name, value))
                continue
            lines.append(_encode_once(name, value))
            name = name.lower()
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length = int(value.decode())
                self.chunked_encoding = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif name == b"connection" and b"close" in [token.strip() for token in value.lower().split(b",")]:
                self.keep_alive = False
                closes = True
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _NO_BODY:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self.transport.write(b"".join(lines))

    def _send_last(self, body: bytes) -> None:
        self.transport.write(body)
        self.expected_content_length = 0
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def fail(self, error: DomainError, linger: Callable[[], None]) -> None:
        """End the body with an error; the response is the last one of its connection."""
        self.failure = error
        self.keep_alive = False
        self.transport = cast("asyncio.Transport", LastResponseTransport(self.transport, linger))
        self.waiting_for_100_continue = False
        self.message_event.set()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next part of the body, or raise the error that ended it."""
        self._raise_failure()
        message = await super().receive()
        self._raise_failure()
        return message

    def _raise_failure(self) -> None:
        if self.failure is not None and not self.response_complete:
            raise self.failure

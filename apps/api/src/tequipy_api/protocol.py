"""HTTP/1.1 on one connection: uvicorn's protocol, with limits, and with exactly one response to each request.

uvicorn alone limits neither the size of a head nor the time a client takes for head and body. It takes an unsupported
`Upgrade` for the end of the request, adds trailer fields to the headers, and responds to a malformed request before
earlier requests of the connection are answered.
"""

import asyncio
import urllib.parse
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

from tequipy_api.cycle import Cycle, Flow
from tequipy_api.edge import Edge, LimitedConnection, WaitList
from tequipy_api.writes import TurnTransport
from tequipy_platform import DomainError, Malformed, Unavailable
from tequipy_platform.web import HeadTooLarge, RequestTimeout

_PIECE: Final = 8192
"""Bytes parsed at once: a packet of 256 KiB can hold 10,000 requests, which would block other connections."""
_UPGRADE_FIELDS: Final = frozenset({b"upgrade", b"http2-settings"})
"""Header fields that request another protocol, and tokens of `Connection` that name them."""


class EdgeProtocol(LimitedConnection):
    """One connection; it is in at most one wait list of the edge, which determines how long it may wait."""

    cycle: Cycle
    flow: Flow

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(server_state, Edge)  # noqa: S101 -- set by `serve`; uvicorn determines this signature
        self._edge = server_state
        self._waiting: WaitList | None = None
        self._has_request = False
        self._in_head = self._in_body = False
        self._upgrading = False
        self._unparsed = b""
        """Input after a request that is already queued behind another one."""
        self._refusal: DomainError | None = None
        """The reason why no further input is read."""
        self._lingering = False
        self._pending = 0
        """The size so far of an unfinished head, or of a chunked body's overhead (extensions, trailer fields): the
        sum of the pieces parsed since it began. The piece in which it began is counted in `_slack` instead."""
        self._slack = 0
        self._piece = 0
        self._counts = False
        """Whether the current piece will be added to `_pending`."""
        self._between = True
        """Whether the current piece began between two requests."""

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # -- as uvicorn has it
        """Start to wait for the first head, unless there are too many connections."""
        super().connection_made(TurnTransport(transport, self._edge.turn, self.loop))
        self.flow = Flow(self.transport)
        if self._edge.admit():
            self._wait(self._edge.heads)
        else:
            self.connections.discard(self)
            self._refusal = Unavailable()
            transport.write(self._edge.refuse(self._refusal, None, log=False))
            transport.close()

    def eof_received(self) -> None:
        """Send what is held; then the transport closes itself, because it takes the end of input for a disconnect."""
        cast("TurnTransport", self.transport).flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waits."""
        self._wait(None)
        self._unparsed = b""
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close in favour of a newer connection; a request in progress is answered, with 503 if its body is missing."""
        stalled = self._waiting is self._edge.stalled
        self._wait(None)
        self.connections.discard(self)
        if self._is_answering() and not stalled:
            self._reject(Unavailable())
        else:
            self.transport.abort()

    def expire(self) -> None:
        """Close after a timeout; responds 408 if the client has sent part of a request."""
        waiting, edge = self._waiting, self._edge
        self._wait(None)
        if self.flow.read_paused and waiting in (edge.heads, edge.bodies):
            self._wait(waiting)  # the client is not late: the server has paused reading
        elif (waiting is edge.heads and self._in_head) or (waiting is edge.bodies and not self.cycle.response_started):
            self._reject(RequestTimeout())
            self._settle()
        else:
            self.transport.abort()

    def _wait(self, waiting: WaitList | None) -> None:
        if waiting is self._waiting:
            return  # keeps the deadline
        if self._waiting is not None:
            self._waiting.remove(self)
        if waiting is not None:
            waiting.add(self)
        self._waiting = waiting

    def _settle(self) -> None:
        """Join the wait list for what the client has to do next."""
        edge = self._edge
        if self._lingering:
            self._wait(edge.lingering)
        elif self.flow.write_paused:
            self._wait(edge.stalled)
        elif self._in_head:
            self._wait(edge.heads)
        elif self._in_body:
            self._wait(edge.bodies)
        elif self._is_answering():
            self._wait(None)
        else:
            self._wait(edge.idle if self._has_request else edge.heads)

    def _is_answering(self) -> bool:
        """Return whether a request whose head is complete has no complete response yet."""
        return self._has_request and not self.cycle.response_complete

    # Reading

    def data_received(self, data: bytes) -> None:
        """Parse input, at most one request ahead of the one that is being answered."""
        if self._refusal is not None:
            return
        if self.pipeline or self._unparsed:
            self._unparsed += data
            self._hold()
            return
        self._parse(data)
        self._settle()

    def _hold(self) -> None:
        self.flow.held = True
        self.flow.pause_reading()

    def _parse(self, data: bytes) -> None:
        if len(data) <= _PIECE:
            self._feed(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), _PIECE):
            if self._refusal is not None:
                return
            if self.pipeline:
                self._unparsed = bytes(view[start:])
                return
            self._feed(view[start : start + _PIECE])

    def _feed(self, data: bytes | memoryview) -> None:
        self._between = not (self._in_head or self._in_body)
        self._counts = True
        self._piece = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(bytes(data[upgrade.args[0] :]))
            return
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            if cause is not None and not isinstance(cause, DomainError):
                self.logger.error("request_parsing_failed", exc_info=cause)  # noqa: TRY400 -- logs the cause's traceback
            self._reject(cause if isinstance(cause, DomainError) else Malformed())
            return
        if self._counts and (self._in_head or self._in_body):
            self._pending += self._piece
            if self._pending > self._edge.max_head_size:
                self._reject(HeadTooLarge())

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse a request again without its `Upgrade` (RFC 9110, section 7.8), then the input after its head.

        The parser treats all further input as another protocol and has no option against it.
        """
        self._upgrading = False
        head = [f"{self.scope['method']} ".encode(), self.url, f" HTTP/{self.parser.get_http_version()}\r\n".encode()]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                kept = b", ".join(token for token in tokens if token.lower() not in _UPGRADE_FIELDS)
                head += [name, b": ", kept, b"\r\n"]
            elif name not in _UPGRADE_FIELDS:
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._feed(b"".join((*head, b"\r\n", rest)))

    def _reject(self, error: DomainError) -> None:
        """Stop reading; the request being read gets this error as its response, the last one of the connection."""
        self._refusal = error
        in_body = self._in_body
        self._in_head = self._in_body = False
        if not in_body:
            if not self._is_answering():
                self._refuse(error)
        elif not self.cycle.response_started:
            self.cycle.fail(error, self._linger)
        elif self.cycle.response_complete:
            self.transport.close()
        else:
            self.transport.abort()

    def _refuse(self, error: DomainError) -> None:
        self.transport.write(self._edge.refuse(error, self.client[0] if self.client else None))
        self._linger()

    def _linger(self) -> None:
        """Send nothing more, and discard further input for a short time.

        If the connection were closed with unread input, the operating system would reset it, and the client could lose
        the response (RFC 9112, section 9.6).
        """
        self._lingering = True
        self.flow.held = False
        self.flow.resume_reading()
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._settle()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Start to count the size of a head."""
        super().on_message_begin()
        self._in_head = True
        self._pending = 0
        self._slack = 0 if self._between else self._piece
        self._counts, self._between = self._between, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header field, but not a trailer field (RFC 9110, section 6.5.1)."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start to serve the request, or queue it behind the one being served."""
        self._in_head = False
        method = self.parser.get_method()
        limit = self._edge.max_head_size
        # The exact size is only computed for large pieces, which may contain other data too.
        if self._slack + self._pending + self._piece > limit and self._head_size(method) > limit:
            raise HeadTooLarge
        self._pending, self._counts = 0, False
        scope = self.scope
        scope["method"] = method.decode("ascii")
        http_version = self.parser.get_http_version()
        if http_version != "1.1":
            scope["http_version"] = http_version
        try:
            url = httptools.parse_url(self.url)
            raw_path = url.path or b"/"
            path = raw_path.decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
            raise Malformed from error
        if self.parser.should_upgrade():
            if method == b"CONNECT":
                raise Malformed  # it has no path, and the data after it is not HTTP
            self._upgrading = True
            return
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""
        waits = self._is_answering()
        self._has_request = True
        self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue and http_version == "1.1",  # RFC 9110, section 10.1.1
            keep_alive=http_version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self._in_body = True
        if waits:
            self._hold()
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

    def _head_size(self, method: bytes) -> int:
        line = len(method) + len(self.url) + len("  HTTP/1.1\r\n")
        return line + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers) + len("\r\n")

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body to the app, unless the response is complete."""
        self._pending, self._counts = 0, False
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Signal the end of the body to the app."""
        self._in_body = False
        if self._upgrading:
            return
        if not self.parser.should_keep_alive():  # a trailer field may ask to close; nothing after it is parsed
            self.cycle.keep_alive = False
        if self.cycle.response_complete:
            if not self.cycle.keep_alive:
                self.transport.close()
            return
        self.cycle.more_body = False
        self.cycle.message_event.set()

    # Responses

    def on_response_complete(self) -> None:
        """Continue with input that arrived meanwhile."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if not self.pipeline and self._refusal is None:
            self.flow.held = False
            self.flow.resume_reading()
            if self._unparsed:
                data, self._unparsed = self._unparsed, b""
                self._parse(data)
        if self._refusal is not None and self.cycle.response_complete and not self._lingering:
            self._refuse(self._refusal)
        self._settle()

    def pause_writing(self) -> None:
        """Wait for the client to read the response."""
        super().pause_writing()
        self._settle()

    def resume_writing(self) -> None:
        """Continue; uvicorn also calls this when the connection is lost."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._settle()

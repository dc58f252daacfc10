"""HTTP/1.1 on one connection: uvicorn's protocol with bounds, and with exactly one answer to each request.

uvicorn alone limits neither the size of a head nor the time that a client takes for head and body; it takes an
`Upgrade` that it cannot do for the end of the request, adds trailer fields to the headers, and answers a malformed
request before those that came earlier on the same connection.
"""

import asyncio
import urllib.parse
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tequipy_api.cycle import Cycle, Flow
from tequipy_api.edge import Edge, Waiting
from tequipy_platform import DomainError, Malformed, Unavailable
from tequipy_platform.api import HeadTooLarge, RequestTimeout

_PIECE: Final = 8192
"""Bytes that are parsed at once: a packet of 256 KiB may hold 10,000 requests, and nobody else is served meanwhile."""
_UPGRADE_FIELDS: Final = frozenset({b"upgrade", b"http2-settings"})
"""Header fields that ask for another protocol, and tokens of `Connection` that name them."""


class EdgeProtocol(HttpToolsProtocol):
    """One connection. What it waits for, and so how long it may, is the one list of the edge that it is in, if any."""

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
        assert isinstance(server_state, Edge)  # noqa: S101 -- `serve` has put it there; uvicorn fixes this signature
        self._edge = server_state
        self._waiting: Waiting | None = None
        self._asked = False
        self._in_head = self._in_body = False
        self._upgrading = False
        self._unparsed = b""
        """What came behind more than one request that still waits for its answer."""
        self._refusal: DomainError | None = None
        """Why nothing more is read."""
        self._lingers = False
        self._pending = 0
        """The size of an unfinished head, or of what a chunked body has beside its data (extensions, trailer fields):
        the pieces that were parsed since it began. A piece in whose middle it began is not in it but in `_slack`."""
        self._slack = 0
        self._piece = 0
        self._counts = False
        """Whether the piece that is being parsed will count."""
        self._between = True
        """Whether it began between two requests."""

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # -- as uvicorn has it
        """Begin to wait for the first head, unless there are too many connections."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        if self._edge.admit():
            self._wait(self._edge.heads)
        else:
            self.connections.discard(self)
            self._refusal = Unavailable()
            transport.write(self._edge.refuse(self._refusal, None, log=False))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._wait(None)
        self._unparsed = b""
        super().connection_lost(exc)

    def evict(self) -> None:
        """Give way to a newer connection; a request that is under way is answered, with 503 if its body is not here."""
        stalled = self._waiting is self._edge.stalled
        self._wait(None)
        self.connections.discard(self)
        if self._is_answering() and not stalled:
            self._reject(Unavailable())
        else:
            self.transport.abort()

    def expire(self) -> None:
        """End what the client has kept waiting too long: 408 where it has begun to send something, else in silence."""
        waiting, edge = self._waiting, self._edge
        self._wait(None)
        if self.flow.read_paused and waiting in (edge.heads, edge.bodies):
            self._wait(waiting)  # it is we who do not read
        elif (waiting is edge.heads and self._in_head) or (waiting is edge.bodies and not self.cycle.response_started):
            self._reject(RequestTimeout())
            self._settle()
        else:
            self.transport.abort()

    def _wait(self, waiting: Waiting | None) -> None:
        if waiting is self._waiting:
            return  # the time goes on
        if self._waiting is not None:
            self._waiting.remove(self)
        if waiting is not None:
            waiting.add(self)
        self._waiting = waiting

    def _settle(self) -> None:
        """Wait for whatever the client has to do next."""
        edge = self._edge
        if self._lingers:
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
            self._wait(edge.idle if self._asked else edge.heads)

    def _is_answering(self) -> bool:
        """Tell whether a request whose head has come is not answered yet."""
        return self._asked and not self.cycle.response_complete

    # Reading

    def data_received(self, data: bytes) -> None:
        """Parse what has come, at most one request ahead of the one that is being answered."""
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
                self.logger.error("request_parsing_failed", exc_info=cause)  # noqa: TRY400 -- it is the cause's traceback
            self._reject(cause if isinstance(cause, DomainError) else Malformed())
            return
        if self._counts and (self._in_head or self._in_body):
            self._pending += self._piece
            if self._pending > self._edge.max_head_size:
                self._reject(HeadTooLarge())

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse a request once more without its `Upgrade` (RFC 9110, section 7.8), and then what follows the head.

        The parser takes all that follows for another protocol, and cannot be told otherwise.
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
        """Read no further: the request that is being read is answered with this error, in its turn, and is the last."""
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
        """Send no more, and discard for a while what the client still sends.

        Were the connection closed before that has been read, the operating system would reset it, and the client lose
        the answer (RFC 9112, section 9.6).
        """
        self._lingers = True
        self.flow.held = False
        self.flow.resume_reading()
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._settle()

    # What the parser finds

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        super().on_message_begin()
        self._in_head = True
        self._pending = 0
        self._slack = 0 if self._between else self._piece
        self._counts, self._between = self._between, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; trailer fields are none (RFC 9110, section 6.5.1)."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start to serve the request, or queue it behind the one that is being served."""
        self._in_head = False
        method = self.parser.get_method()
        limit = self._edge.max_head_size
        # The sum is needed for large pieces alone, which may hold something else too.
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
                raise Malformed  # it has no path, and what follows is no HTTP
            self._upgrading = True
            return
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""
        waits = self._is_answering()
        self._asked = True
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
        """Hand a piece of the body to the app, if that still wants it."""
        self._pending, self._counts = 0, False
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Tell the app that the body has ended."""
        self._in_body = False
        if self._upgrading:
            return
        if not self.parser.should_keep_alive():  # a trailer field may have said so, and nothing behind it is parsed
            self.cycle.keep_alive = False
        if self.cycle.response_complete:
            if not self.cycle.keep_alive:
                self.transport.close()
            return
        self.cycle.more_body = False
        self.cycle.message_event.set()

    # Answering

    def on_response_complete(self) -> None:
        """Go on with what the client has sent meanwhile."""
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
        if self._refusal is not None and self.cycle.response_complete and not self._lingers:
            self._refuse(self._refusal)
        self._settle()

    def pause_writing(self) -> None:
        """Wait for the client to take what it has been answered."""
        super().pause_writing()
        self._settle()

    def resume_writing(self) -> None:
        """Go on; uvicorn calls it once more when the connection is lost."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._settle()

"""Connection limits: sizes, timeouts, number, and one response to each request in order."""

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import structlog
import uvicorn
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response, StreamingResponse
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tequipy_api import edge as edge_module
from tequipy_api.edge import Edge, connection_limit
from tequipy_api.protocol import EdgeProtocol
from tequipy_api.settings import ApiSettings, ServerSettings
from tequipy_observability.api import ObservabilityMiddleware
from tequipy_platform.web import CatchErrors, LimitBodies, SecurityHeaders, wire_errors

HEAD = b"GET /a HTTP/1.1\r\nHost: x\r\n"
LIMIT = 2048


def build_app() -> FastAPI:
    """Return an app that reports the requests it receives."""
    app = FastAPI(
        middleware=[
            Middleware(ObservabilityMiddleware, CollectorRegistry()),
            Middleware(SecurityHeaders),
            Middleware(LimitBodies),
            Middleware(CatchErrors),
        ]
    )
    wire_errors(app)

    async def flood(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65_536
                await asyncio.sleep(0)

        return StreamingResponse(pieces())

    async def echo(request: Request) -> Response:
        body = (await request.body()).decode()
        names = sorted(request.headers)
        return JSONResponse({"method": request.method, "path": request.url.path, "body": body, "fields": names})

    app.add_route("/flood", flood)
    app.add_route("/{path:path}", echo, methods=["GET", "POST", "PUT"])
    return app


class Client:
    """A connection, and the data received on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        """Send the data at once."""
        self.writer.write(data)

    async def send_pieces(self, data: bytes, cuts: list[int]) -> None:
        """Send the data in pieces, cut at these positions, that arrive separately."""
        places = sorted({cut % (len(data) + 1) for cut in cuts})
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            if self.writer.is_closing():
                return
            self.writer.write(data[start:end])
            await asyncio.sleep(0.001)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return status, header fields and JSON of the next response."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            fields = dict(line.split(": ", 1) for line in head.splitlines()[1:-1])
            body = await self.reader.readexactly(int(fields["content-length"]))
        return int(head.split()[1]), fields, json.loads(body)

    async def end(self) -> bytes:
        """Return all data until the server closes the connection."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


class Served:
    """An app behind the edge in this process."""

    def __init__(self, edge: Edge, port: int, registry: CollectorRegistry) -> None:
        self.edge, self.port, self.registry = edge, port, registry
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    def refused(self, reason: str) -> float:
        """Return the number of refusals with this reason."""
        return self.registry.get_sample_value("http_edge_refusals_total", {"reason": reason}) or 0


async def until(holds: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def served(app: FastAPI | None = None, *, max_connections: int = 100, **bounds: float) -> AsyncIterator[Served]:
    """Serve an app with these limits."""
    registry = CollectorRegistry()
    server_settings = ServerSettings.model_validate({"max_head_size": LIMIT} | bounds)
    edge = Edge(server_settings, max_connections=max_connections, hsts=True, registry=registry)
    config = uvicorn.Config(app or build_app(), ws="none", log_config=None, access_log=False)

    async def sweep() -> None:
        while True:
            edge.sweep()
            await asyncio.sleep(0.01)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: EdgeProtocol(config, edge, {}), "127.0.0.1", 0)
    sweeping = asyncio.create_task(sweep())
    run = Served(edge, server.sockets[0].getsockname()[1], registry)
    try:
        yield run
    finally:
        sweeping.cancel()
        for client in run.clients:
            client.writer.transport.abort()
        for connection in list(edge.connections):
            cast("EdgeProtocol", connection).transport.abort()
        server.close()


def request(method: str, path: str, body: str, *fields: bytes, chunks: int = 0) -> bytes:
    """Return the bytes of a request; with `chunks`, its body is chunked."""
    data = body.encode()
    head = [f"{method} /{path} HTTP/1.1".encode(), b"Host: x", *fields]
    if not chunks:
        return b"\r\n".join([*head, b"Content-Length: %d" % len(data), b"", data])
    size = max(1, len(data) // chunks)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    coded = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"\r\n".join([*head, b"Transfer-Encoding: chunked", b"", coded]) + b"0\r\nX-Trailer: y\r\n\r\n"


UPGRADES = [
    (),
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAA"),
    (b"Upgrade: websocket", b"Connection: keep-alive, upgrade", b"Sec-WebSocket-Key: x"),
    (b"Connection: upgrade", b"Upgrade: foo/2"),
]
requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "PUT"]),
        "path": st.text("abc", max_size=3),
        "body": st.text("xyz\r\n", max_size=30) | st.just("x" * 9000),
        "upgrade": st.sampled_from(UPGRADES),
        "chunks": st.integers(0, 3),
    }
)


@settings(deadline=None, max_examples=150)
@given(st.lists(requests, min_size=1, max_size=6), st.lists(st.integers(0, 100_000), max_size=8), st.booleans())
async def test_each_request_has_one_response_in_order(
    sent: list[dict[str, Any]], cuts: list[int], garbage: bool
) -> None:
    """Pipelined or not, cut anywhere, with and without `Upgrade`: every body arrives, invalid HTTP is answered last."""
    whole = b"".join(
        request(one["method"], one["path"], one["body"], *one["upgrade"], chunks=one["chunks"]) for one in sent
    )
    async with served() as server:
        client = await server.connect()
        await client.send_pieces(whole + (b"\x00garbage\r\n\r\n" if garbage else b""), cuts)
        for one in sent:
            status, fields, echoed = await client.answer()
            assert (status, echoed["method"], echoed["path"]) == (200, one["method"], f"/{one['path']}")
            assert echoed["body"] == one["body"]
            assert not {"upgrade", "http2-settings", "x-trailer"} & set(echoed["fields"])
            assert "connection" not in fields
        if garbage:
            status, fields, _ = await client.answer()
            assert (status, fields["connection"]) == (400, "close")
            assert await client.end() == b""
        else:
            client.send(request("GET", "last", ""))
            assert (await client.answer())[2]["path"] == "/last"


def head_of(size: int, fields: int) -> bytes:
    """Return a head with this number of bytes, and this number of fields besides `Host`."""
    head = HEAD + b"".join(b"X-%04d: \r\n" % number for number in range(fields))
    return head[:-2] + b"x" * (size - len(head) - 2) + b"\r\n\r\n"


@settings(deadline=None, max_examples=60)
@given(
    st.integers(LIMIT - 2, LIMIT + 2) | st.integers(LIMIT, 50_000),
    st.integers(1, 150),
    st.lists(st.integers(0, 100_000), max_size=5),
    st.booleans(),
)
async def test_a_head_is_refused_beyond_the_size_limit(size: int, fields: int, cuts: list[int], second: bool) -> None:
    """A head is served up to the limit and gives 431 beyond it, in one piece, in many, or after another request."""
    head = head_of(size, fields)
    assert len(head) == size
    async with served() as server:
        client = await server.connect()
        first = request("POST", "first", "x" * 3000) if second else b""
        await client.send_pieces(first + head, cuts)
        if second:
            assert (await client.answer())[0] == 200
        status, answer, document = await client.answer()
        assert status == (200 if size <= LIMIT else 431)
        if status == 431:
            assert document["code"] == "head_too_large"
            assert answer["connection"] == "close"
            assert await client.end() == b""


@pytest.mark.parametrize(
    "start",
    [
        HEAD + b"X-One: ",
        HEAD,
        b"GET /",
        request("POST", "a", "abc", chunks=1)[: -len(b"X-Trailer: y\r\n\r\n")],
        request("POST", "a", "abc", chunks=1)[: -len(b"0\r\nX-Trailer: y\r\n\r\n")] + b"1;",
    ],
    ids=["one field", "many fields", "target", "trailer", "chunk extension"],
)
async def test_endless_input_is_refused_at_the_limit(start: bytes) -> None:
    """Megabytes of a field, fields, a target, trailer fields or a chunk extension give 431 after a few kilobytes."""
    piece = b"X-Some: thing\r\n" * 600 if start == HEAD else b"x" * 9000
    async with served() as server:
        client = await server.connect()
        client.send(start)
        for _ in range(300):
            if client.writer.is_closing():
                break
            client.send(piece)
            await asyncio.sleep(0)
        status, fields, document = await client.answer()
        assert (status, document["code"], fields["connection"]) == (431, "head_too_large", "close")


@pytest.mark.parametrize("early", [False, True], ids=["answered behind it", "answered before"])
async def test_a_trailer_that_ends_the_connection_closes_it(early: bool) -> None:
    """A trailer field that ends the connection makes the server close it, so clients repeat later requests."""
    app = FastAPI()  # without the error middleware, which reads each body before the route runs

    async def answer(request: Request) -> Response:
        return JSONResponse({} if early else {"size": len(await request.body())})

    app.add_route("/a", answer, methods=["POST"])
    data = request("POST", "a", "abc", chunks=1)
    body, trailers = data[: -len(b"X-Trailer: y\r\n\r\n")], b"Connection: close\r\n\r\n"
    async with served(app) as server:
        client = await server.connect()
        client.send(body if early else body + trailers + request("GET", "b", ""))
        assert (await client.answer())[0] == 200
        if early:
            client.send(trailers + request("GET", "b", ""))
        assert await client.end() == b""


async def test_trailer_fields_are_not_header_fields() -> None:
    """A field after a chunked body is not treated as a header field (RFC 9110, section 6.5.1)."""
    async with served() as server:
        client = await server.connect()
        client.send(request("POST", "a", "abc", chunks=1).replace(b"X-Trailer: y", b"Authorization: Bearer x"))
        assert (await client.answer())[2]["fields"] == ["host", "transfer-encoding"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["TLS", "version", "h2", "CONNECT", "blank", "raw bytes", "folded", "two framings", "two lengths", "chunk"],
)
async def test_invalid_http_gives_a_problem_document(data: bytes) -> None:
    """Invalid HTTP gives one 400 problem document, one access event with its correlation id, and a close."""
    seen: list[EventDict] = []

    def note(_: object, __: str, event: EventDict) -> EventDict:
        seen.append(event)
        raise structlog.DropEvent

    async with served() as server:
        structlog.configure(processors=[note])
        try:
            client = await server.connect()
            client.send(data)
            status, fields, document = await client.answer()
            assert await client.end() == b""
        finally:
            structlog.reset_defaults()
    assert (status, document["code"], document["status"]) == (400, "malformed", 400)
    assert fields["x-content-type-options"] == "nosniff"
    assert {"content-security-policy", "referrer-policy", "strict-transport-security"} <= fields.keys()
    assert fields["content-type"] == "application/problem+json"
    assert fields["connection"] == "close"
    assert document["correlation_id"] == fields["x-correlation-id"]
    assert [(event["event"], event["status"]) for event in seen] == [("http_request", 400)]


async def test_a_target_without_a_path_is_the_root() -> None:
    """In absolute form the path may be empty, which means `/` (RFC 9112, section 3.2.2)."""
    async with served() as server:
        client = await server.connect()
        client.send(b"GET http://example.com HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert (await client.answer())[2]["path"] == "/"


async def test_http_1_0_has_one_response_and_closes() -> None:
    """Without keep-alive the connection is closed after the response, also with `Upgrade`."""
    async with served() as server:
        client = await server.connect()
        client.send(b"POST /a HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab")
        status, fields, echoed = await client.answer()
        assert (status, fields["connection"], echoed["body"]) == (200, "close", "ab")
        assert await client.end() == b""


@pytest.mark.parametrize(("version", "interim"), [("1.0", False), ("1.1", True)])
async def test_only_http_1_1_gets_100_continue(version: str, interim: bool) -> None:
    """HTTP/1.0 clients get no 100 Continue, which they would take for the response (RFC 9110, section 10.1.1)."""
    async with served() as server:
        client = await server.connect()
        client.send(f"POST /a HTTP/{version}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode())
        await until(lambda: bool(server.edge.tasks))
        client.send(b"ab")
        if interim:
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        status, _, echoed = await client.answer()
        assert (status, echoed["body"]) == (200, "ab")


async def test_ten_thousand_requests_in_one_packet_are_answered() -> None:
    """Ten thousand pipelined requests are parsed in small parts and all answered, with others served in between."""
    async with served() as server:
        client, other = await server.connect(), await server.connect()
        count, between = 10_000, 0

        async def read() -> None:
            for _ in range(count):
                await client.answer()

        client.send(b"GET /a HTTP/1.1\r\n\r\n" * count)
        reading = asyncio.create_task(read())
        while not reading.done():
            other.send(request("GET", "other", ""))
            await other.answer()
            between += 1
        await reading
        assert between > 10


# Timeouts


async def drip(client: Client, data: bytes) -> None:
    """Send a byte every 10 ms until the connection is closed."""
    for number in range(2000):
        if client.writer.is_closing():
            return
        client.send(data[number % len(data) :][:1])
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "start",
    [HEAD + b"X: ", b"GET /", request("GET", "first", "") + HEAD + b"X: "],
    ids=["fields", "target", "second request"],
)
async def test_a_slow_head_times_out(start: bytes) -> None:
    """Slow bytes do not extend the timeout of a head: 408, for the first request of a connection and later ones."""
    async with served(head_timeout=0.3) as server:
        client = await server.connect()
        client.send(start)
        dripping = asyncio.create_task(drip(client, b"x"))
        if b"first" in start:
            assert (await client.answer())[0] == 200
        status, fields, document = await client.answer()
        assert (status, document["code"], fields["connection"]) == (408, "request_timeout", "close")
        dripping.cancel()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_slow_body_times_out(chunked: bool) -> None:
    """Slow bytes do not extend the timeout of a body: 408 from the app's error handling, as one access event."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 100000"
    async with served(body_timeout=0.3) as server:
        with capture_logs() as events:
            client = await server.connect()
            client.send(b"POST /a HTTP/1.1\r\nX-Correlation-ID: abc\r\n%b\r\n\r\n" % framing)
            dripping = asyncio.create_task(drip(client, b"1\r\nx\r\n" if chunked else b"x"))
            status, fields, document = await client.answer()
            assert (status, document["code"], fields["connection"]) == (408, "request_timeout", "close")
            assert document["correlation_id"] == fields["x-correlation-id"] == "abc"
            assert await client.end() == b""
            dripping.cancel()
    assert [(event["event"], event["status"]) for event in events] == [("http_request", 408)]


async def test_a_connection_without_a_request_is_closed_without_a_response() -> None:
    """A connection without a request is closed without a response or log, because browsers open spare connections."""
    async with served(head_timeout=0.2) as server:
        with capture_logs() as events:
            silent, blank = await server.connect(), await server.connect()
            blank.send(b"\r\n\r\n")
            assert [await silent.end(), await blank.end()] == [b"", b""]
        assert events == []


async def test_an_idle_connection_has_the_keep_alive_timeout() -> None:
    """Between two requests the keep-alive timeout applies instead of the head timeout, with or without blank lines."""
    async with served(head_timeout=0.2, keep_alive_timeout=3) as server:
        client = await server.connect()
        for _ in range(2):
            client.send(request("GET", "a", ""))
            assert (await client.answer())[0] == 200
            await asyncio.sleep(0.6)
        client.send(b"\r\n")
        assert await client.end() == b""


async def test_pauses_of_the_app_do_not_count_towards_the_body_timeout() -> None:
    """A body does not time out while the app does not read it."""
    app = FastAPI()
    go = asyncio.Event()

    async def slow(request: Request) -> Response:
        await go.wait()
        return JSONResponse({"size": len(await request.body())})

    app.add_route("/", slow, methods=["POST"])
    async with served(app, body_timeout=1) as server:
        client = await server.connect()
        client.send(request("POST", "", "x" * 300_000))
        await asyncio.sleep(2.5)
        go.set()
        assert (await client.answer())[2] == {"size": 300_000}


async def test_a_client_that_reads_no_response_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose write buffers stay full for too long is closed, and its request ends."""
    monkeypatch.setattr(edge_module, "_STALL_SECONDS", 0.3)
    async with served() as server:
        raw = socket.create_connection(("127.0.0.1", server.port))
        raw.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: bool(server.edge.tasks))
        await until(lambda: not server.edge.tasks and not server.edge.connections)
        raw.close()


# Number of connections


async def test_the_connection_that_waited_longest_is_closed() -> None:
    """Over the limit, incomplete heads are closed first, then idle connections, then bodies, with one log line."""
    async with served(max_connections=6) as server:
        with capture_logs() as events:
            clients = [await server.connect() for _ in range(6)]
            body, idle, *silent = clients
            body.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
            await until(lambda: len(server.edge.tasks) == 1)
            idle.send(request("GET", "a", ""))
            await idle.answer()
            for one in silent:
                late = await server.connect()
                assert await one.end() == b""
                late.send(request("GET", "late", "") + b"POST /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
                assert (await late.answer())[0] == 200
            await until(lambda: len(server.edge.tasks) == 5)
            busy = await server.connect()
            assert await idle.end() == b""
            busy.send(request("POST", "busy", "x")[:-1])
            await until(lambda: len(server.edge.tasks) == 6)
            await server.connect()
            status, fields, document = await body.answer()
            assert (status, document["code"], fields["retry-after"]) == (503, "unavailable", "1")
        limit = [event for event in events if event["event"] == "connection_limit_reached"]
        assert len(limit) == 1
        assert (limit[0]["limit"], limit[0]["log_level"]) == (6, "warning")
        assert server.refused("connection_evicted") == 6


async def test_lingering_connections_count_towards_the_limit() -> None:
    """Closed connections that linger are dropped first and do not count as freed slots."""
    async with served(max_connections=6) as server:
        clients: list[Client] = []
        for _ in range(60):
            clients.append(await server.connect())
            clients[-1].send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
            await until(lambda: len(server.edge.tasks) == min(len(clients), 6))
            if len(clients) > 6:
                assert (await clients[-7].answer())[0] == 503
            assert len(server.edge.connections) <= 6
        assert server.refused("connection_evicted") == 54


async def test_new_connections_are_refused_if_all_are_being_served() -> None:
    """If all connections are being served, a new one gets 503 with `Retry-After` at once, and the others continue."""
    app = FastAPI()
    go = asyncio.Event()

    async def wait(_: Request) -> Response:
        await go.wait()
        return JSONResponse({})

    app.add_route("/", wait)
    async with served(app, max_connections=2) as server:
        busy = [await server.connect() for _ in range(2)]
        for one in busy:
            one.send(request("GET", "", ""))
        await until(lambda: len(server.edge.tasks) == 2)
        for _ in range(3):
            late = await server.connect()
            status, fields, document = await late.answer()
            assert (status, document["code"], fields["retry-after"]) == (503, "unavailable", "1")
            assert await late.end() == b""
        go.set()
        assert [(await one.answer())[0] for one in busy] == [200, 200]
        assert server.refused("connection_refused") == 3


@pytest.mark.parametrize(
    ("files", "wanted", "limit"),
    [
        (1024, None, 881),
        (1_000_000, None, 4096),
        (resource.RLIM_INFINITY, None, 4096),
        (1024, 881, 881),
        (resource.RLIM_INFINITY, 100_000, 100_000),
        (1024, 882, r"should be at most 881: the process may open 1024 files \(ulimit -n\) and needs 143"),
        (100, None, "should be smaller than possible"),
    ],
)
def test_the_limit_leaves_files_for_the_process(
    settings: ApiSettings, monkeypatch: pytest.MonkeyPatch, files: int, wanted: int | None, limit: int | str
) -> None:
    """The default limit leaves files for database, Redis and others, whatever the operating system's limit is."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    settings = settings.model_copy(update={"server": ServerSettings(max_connections=wanted)})
    if isinstance(limit, int):
        assert connection_limit(settings) == limit
    else:
        with pytest.raises(ValueError, match=limit):
            connection_limit(settings)

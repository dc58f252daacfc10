"""Timeouts of heads, bodies, idle connections and responses that no client reads."""

import asyncio
import socket

import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from structlog.testing import capture_logs

from tequipy_api import edge as edge_module

from .served import HEAD, Client, request, served, until


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

"""Requests on one connection: one response to each in order, with `Upgrade`, trailers, pipelining and invalid HTTP."""

import asyncio
from typing import Any

import pytest
import structlog
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse, Response
from structlog.typing import EventDict

from .served import request, served, until

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


@settings(max_examples=150)
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

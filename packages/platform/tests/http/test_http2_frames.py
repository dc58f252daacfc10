"""Servers that break the rules of HTTP/2: an error of httpx that blames the host, and the next call is served."""

import asyncio

import httpx
import pytest

from tequipy_platform.http import CircuitOpen

from .conftest import Calling
from .http2_upstream import Http2Connection

INVALID = {
    "ping of one byte": b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x",
    "settings of a stream": b"\x00\x00\x00\x04\x00\x00\x00\x00\x01",
    "data without a request": b"\x00\x00\x01\x00\x00\x00\x00\x00\x63x",
    "continuation of nothing": b"\x00\x00\x00\x09\x04\x00\x00\x00\x01",
}


async def answer(connection: Http2Connection, stream: int, path: str) -> None:
    """Send an invalid frame instead of the response, or in the middle of its body."""
    place, _, name = path.removeprefix("/").partition("/")
    if place == "body":
        connection.answer(stream, end=False)
    if name:
        connection.writer.write(INVALID[name.replace("%20", " ")])
    else:
        connection.answer(stream)


@pytest.mark.parametrize("name", INVALID)
@pytest.mark.parametrize("place", ["head", "body"])
async def test_an_invalid_frame_is_a_fault_of_the_server(calling: Calling, place: str, name: str) -> None:
    """The call ends with `RemoteProtocolError`, and the next one is sent on another connection."""
    async with calling(answer) as (upstream, http):
        with pytest.raises(httpx.RemoteProtocolError):
            await http.default.post(f"{upstream.url}/{place}/{name}")
        assert (await http.default.get(upstream.url)).text == "ok"
        assert len(upstream.connections) == 2


@pytest.mark.parametrize("place", ["head", "body"])
async def test_invalid_frames_open_the_circuit_breaker(calling: Calling, place: str) -> None:
    """A server that sends nothing else is left alone after 20 calls."""
    async with calling(answer) as (upstream, http):
        for _ in range(20):
            with pytest.raises(httpx.RemoteProtocolError):
                await http.default.post(f"{upstream.url}/{place}/ping of one byte")
        with pytest.raises(CircuitOpen):
            await http.default.get(upstream.url)


async def test_all_calls_on_the_connection_blame_the_server(calling: Calling) -> None:
    """Calls that share the connection with the one that met the frame end with the same error, and none hangs."""
    waiting = asyncio.Event()

    async def answer_all(connection: Http2Connection, stream: int, path: str) -> None:
        if path == "/ok":
            connection.answer(stream)
        elif len(connection.requests) == 6:
            connection.writer.write(INVALID["ping of one byte"])
            waiting.set()

    async with calling(answer_all) as (upstream, http):
        await http.default.get(f"{upstream.url}/ok")
        calls = [http.default.post(f"{upstream.url}/{number}") for number in range(5)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert waiting.is_set()
    assert {type(error) for error in ended} == {httpx.RemoteProtocolError}

"""HTTP/2: calls share a connection, and one that ends early or a server that goes away does no harm to the others."""

import asyncio
from time import perf_counter

import h2.errors
import httpx
import pytest

from tequipy_platform.http import DeadlineExceeded

from .conftest import Calling
from .http2_upstream import Http2Connection


async def answer_or_hang(connection: Http2Connection, stream: int, path: str) -> None:
    """Answer all paths but `/hang`."""
    if path != "/hang":
        connection.answer(stream)


async def test_calls_share_one_connection(calling: Calling) -> None:
    """Fifty calls at once are sent over one connection with HTTP/2."""
    async with calling(answer_or_hang) as (upstream, http):
        responses = await asyncio.gather(*(http.default.get(f"{upstream.url}/{n}") for n in range(50)))
        assert {(response.status_code, response.http_version) for response in responses} == {(200, "HTTP/2")}
        assert (len(upstream.connections), len(upstream.requests)) == (1, 50)


async def test_cancelled_calls_use_up_no_connection(calling: Calling) -> None:
    """After 120 calls that were cancelled, the next one succeeds, and the others on the connection do too."""
    async with calling(answer_or_hang) as (upstream, http):
        await http.default.get(f"{upstream.url}/ok")
        for _ in range(2):
            already = len(upstream.requests)
            calls = [asyncio.ensure_future(http.default.get(f"{upstream.url}/hang")) for _ in range(60)]
            async with asyncio.timeout(10):
                while len(upstream.requests) < already + 60:
                    await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert (await http.default.get(f"{upstream.url}/ok")).status_code == 200
        print(f"120 calls cancelled: {len(upstream.connections)} connections")
        # The connections of cancelled calls are closed, so that the server learns of it.
        async with asyncio.timeout(10):
            for connection in upstream.connections[:-1]:
                await connection.closed.wait()


async def test_a_call_that_waits_too_long_ends_no_other(calling: Calling) -> None:
    """When one call gets no answer in time, others on its connection still get theirs."""
    asked = asyncio.Event()

    async def answer(connection: Http2Connection, stream: int, path: str) -> None:
        if path == "/late":
            await asked.wait()
        if path != "/hang":
            connection.answer(stream)

    async with calling(answer) as (upstream, http):
        # This one makes the connection, so that the server has nothing more to say until it is asked.
        await http.default.get(f"{upstream.url}/ok")
        short = httpx.Timeout(20, read=0.5)
        hanging = asyncio.ensure_future(http.default.get(f"{upstream.url}/hang", timeout=short))
        async with asyncio.timeout(10):
            while "/hang" not in upstream.requests:
                await asyncio.sleep(0.01)
        late = asyncio.ensure_future(http.default.get(f"{upstream.url}/late"))
        with pytest.raises(httpx.ReadTimeout):
            await hanging
        asked.set()
        assert (await late).status_code == 200
        assert len(upstream.connections) == 1


async def test_a_connection_that_does_not_answer_is_replaced(calling: Calling) -> None:
    """A server that stops reading costs the calls that are under way; later ones use another connection."""
    async with calling(answer_or_hang) as (upstream, http):
        await http.default.get(f"{upstream.url}/ok")
        upstream.connections[0].writer.transport.pause_reading()  # type: ignore[attr-defined]
        results = []
        for _ in range(5):
            try:
                response = await http.default.get(f"{upstream.url}/ok", extensions={"total": 0.5})
                results.append(str(response.status_code))
            except DeadlineExceeded:
                results.append("deadline")
        print(f"{results}, {len(upstream.connections)} connections")
        assert results == ["deadline", "200", "200", "200", "200"]


async def test_a_response_that_is_not_read_ends_its_connection_alone(calling: Calling) -> None:
    """A streamed response that is closed early is not read on; the next call uses another connection."""

    async def answer(connection: Http2Connection, stream: int, path: str) -> None:
        connection.answer(stream, end=path == "/ok")

    async with calling(answer) as (upstream, http):
        async with http.default.stream("GET", f"{upstream.url}/endless") as response:
            assert await anext(response.aiter_raw()) == b"ok"
        assert (await http.default.get(f"{upstream.url}/ok")).status_code == 200
        assert [connection.requests for connection in upstream.connections] == [["/endless"], ["/ok"]]
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


@pytest.mark.parametrize("fault", ["goaway", "reset", "disconnect"])
async def test_a_request_that_may_have_been_processed_is_repeated_only_if_it_may_be(
    fault: str, calling: Calling
) -> None:
    """After a GOAWAY, RST_STREAM or disconnect that leaves it open, GET is sent again; POST is an error, sent once."""
    broken: set[str] = set()

    async def break_once(connection: Http2Connection, stream: int, path: str) -> None:
        if path in broken:
            connection.answer(stream)
            return
        broken.add(path)
        if fault == "goaway":
            connection.goaway(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif fault == "reset":
            connection.reset(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            connection.writer.transport.abort()

    async with calling(break_once, attempts=3) as (upstream, http):
        assert (await http.default.get(f"{upstream.url}/get")).status_code == 200
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)) as caught:
            await http.default.post(f"{upstream.url}/post")
        print(f"{fault}: {upstream.requests}, {caught.value!r}")
        assert (upstream.requests.count("/get"), upstream.requests.count("/post")) == (2, 1)


@pytest.mark.parametrize("frame", ["settings", "ping", "data"])
async def test_a_flood_of_frames_ends_at_the_deadline(frame: str, calling: Calling) -> None:
    """A server that sends frames for ever, and no answer, costs its total; the event loop goes on meanwhile."""

    async def flood(connection: Http2Connection, stream: int, _: str) -> None:
        empty = {
            "settings": b"\x00\x00\x00\x04\x00" + bytes(4),
            "ping": b"\x00\x00\x08\x06\x00" + bytes(4) + bytes(8),
            "data": b"\x00\x00\x00\x00\x00" + stream.to_bytes(4),
        }[frame]
        if frame == "data":
            connection.answer(stream, end=False)
        while True:
            connection.writer.write(empty * 500)
            await connection.writer.drain()
            await asyncio.sleep(0)

    lags = []

    async def measure() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(0.01)
            lags.append(perf_counter() - began - 0.01)

    async with calling(flood) as (upstream, http):
        measuring = asyncio.create_task(measure())
        began = perf_counter()
        with pytest.raises((DeadlineExceeded, httpx.RemoteProtocolError, httpx.LocalProtocolError)) as caught:
            await http.default.get(f"{upstream.url}/flood", extensions={"total": 1.0})
        seconds = perf_counter() - began
        measuring.cancel()
        print(f"{frame}: {type(caught.value).__name__} after {seconds:.2f} s, lag at most {max(lags) * 1000:.0f} ms")

"""GOAWAY: calls under way are answered, those that the server has not processed are sent again."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_platform.http.goaway import GoawayFilter

from .conftest import Calling
from .http2_upstream import Http2Connection


def frame(kind: int, payload: bytes, stream: int = 0) -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + stream.to_bytes(4, "big") + payload


def goaway(last_stream: int, code: int = 0) -> bytes:
    """Return a frame GOAWAY, with a text for debugging."""
    return frame(7, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + b"bye")


FRAMES = st.lists(
    st.one_of(
        st.builds(frame, st.integers(0, 6), st.binary(max_size=300), st.integers(0, 9)),
        st.builds(goaway, st.integers(0, 9), st.integers(0, 1)),
    ),
    max_size=12,
)


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1))
def test_only_graceful_goaway_is_replaced_however_the_bytes_come(frames: list[bytes], lengths: list[int]) -> None:
    """All other frames pass; in the place of GOAWAY without error the streams after its last one are reset."""
    said: list[int] = []

    def on_goaway(last_stream: int) -> list[int]:
        said.append(last_stream)
        return [stream for stream in (1, 3, 5, 7, 9) if stream > last_stream]

    graceful = {goaway(last) for last in range(10)}
    expected, lasts = b"", []
    for each in frames:
        if each in graceful:
            lasts.append(int.from_bytes(each[9:13], "big"))
            resets = [stream for stream in (1, 3, 5, 7, 9) if stream > lasts[-1]]
            expected += b"".join(frame(3, (7).to_bytes(4, "big"), stream) for stream in resets)
        else:
            expected += each
    filtered, data, turn = GoawayFilter(on_goaway), b"".join(frames), 0
    passed = b""
    while data:
        length = lengths[turn % len(lengths)]
        passed, data, turn = passed + filtered.feed(data[:length]), data[length:], turn + 1
    assert (passed, said) == (expected, lasts)


async def answer(connection: Http2Connection, stream: int, _: str) -> None:
    connection.answer(stream)


@pytest.mark.parametrize("announced", [True, False])
async def test_calls_under_way_are_answered_after_goaway(announced: bool, calling: Calling) -> None:
    """A server that says GOAWAY still answers what it has begun; a POST is sent once, and the next on a new connection.

    It may announce GOAWAY by one with the highest number first.
    """

    async def leave(connection: Http2Connection, stream: int, path: str) -> None:
        if path == "/leave":
            if announced:
                connection.goaway(2**31 - 1)
                await asyncio.sleep(0)
            connection.goaway(stream)
            await asyncio.sleep(0.05)
        connection.answer(stream)

    async with calling(leave) as (upstream, http):
        await http.default.get(f"{upstream.url}/ok")
        assert (await http.default.post(f"{upstream.url}/leave")).status_code == 200
        assert (await http.default.post(f"{upstream.url}/ok")).status_code == 200
        assert [connection.requests for connection in upstream.connections] == [["/ok", "/leave"], ["/ok"]]
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


async def test_a_server_that_processes_nothing_is_asked_three_times(calling: Calling) -> None:
    """A server that refuses each connection after the request gets no endless series of them."""

    async def refuse(connection: Http2Connection, *_: object) -> None:
        connection.goaway(0)

    async with calling(refuse) as (upstream, http):
        with pytest.raises(httpx.RemoteProtocolError):
            await http.default.post(f"{upstream.url}/post")
        assert len(upstream.connections) == len(upstream.requests) == 3


async def test_a_body_that_cannot_be_sent_twice_is_not(calling: Calling) -> None:
    """A streamed body is an error, even though the server has not processed its request."""

    async def refuse(connection: Http2Connection, *_: object) -> None:
        connection.goaway(0)

    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    async with calling(refuse) as (upstream, http):
        with pytest.raises(httpx.RemoteProtocolError):
            await http.default.post(f"{upstream.url}/post", content=body())
        assert len(upstream.requests) == 1


async def test_a_request_that_was_not_processed_goes_to_another_connection(calling: Calling) -> None:
    """After GOAWAY that excludes it, even a POST is sent again, because the server has not processed it."""

    async def go_away(connection: Http2Connection, stream: int, path: str) -> None:
        if path == "/leave" and stream > 1:
            connection.goaway(stream - 2)
        else:
            connection.answer(stream)

    async with calling(go_away) as (upstream, http):
        await http.default.get(f"{upstream.url}/ok")
        assert (await http.default.post(f"{upstream.url}/leave")).status_code == 200
        assert [connection.requests for connection in upstream.connections] == [["/ok", "/leave"], ["/leave"]]


@pytest.mark.parametrize(("says_goaway", "disconnects"), [(True, True), (True, False), (False, True)])
async def test_an_idle_connection_that_the_server_has_left_is_not_used(
    says_goaway: bool, disconnects: bool, calling: Calling
) -> None:
    """A POST after GOAWAY or a disconnect on the idle connection goes to a new one, and succeeds."""
    async with calling(answer) as (upstream, http):
        await http.default.get(f"{upstream.url}/ok")
        if says_goaway:
            upstream.connections[0].goaway(1)
        if disconnects:
            upstream.connections[0].writer.transport.abort()
            async with asyncio.timeout(10):
                await upstream.connections[0].closed.wait()
        assert (await http.default.post(f"{upstream.url}/ok")).status_code == 200
        assert len(upstream.connections) == 2

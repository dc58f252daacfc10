"""HTTP/2: cancelled calls and wrong frames end no other call, and no error but those of httpx reaches a caller."""

import asyncio
import random

import httpx
import pytest

from .conftest import Calling
from .http2_upstream import Http2Connection

RANDOM = random.Random(23)  # noqa: S311 -- moments


async def answer(connection: Http2Connection, stream: int, _: str) -> None:
    connection.answer(stream)


async def test_calls_that_are_cancelled_at_any_moment_end_no_other(calling: Calling) -> None:
    """Uploads that are cancelled after each number of steps of the event loop leave those beside them alone."""
    async with calling(answer) as (upstream, http):

        async def upload() -> int:
            response = await http.default.post(f"{upstream.url}/upload", content=bytes(40_000))
            return response.status_code

        for steps in range(60):
            cancelled = [asyncio.ensure_future(upload()) for _ in range(3)]
            others = [asyncio.ensure_future(upload()) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for call in cancelled:
                call.cancel()
            await asyncio.wait(cancelled)
            assert await asyncio.gather(*others) == [200] * 3
        print(f"180 calls cancelled, 180 others succeeded, {len(upstream.connections)} connections")


@pytest.mark.parametrize("fault", ["longer", "shorter", "unknown stream", "too long a frame"])
async def test_wrong_frames_are_an_error_of_httpx(fault: str, calling: Calling) -> None:
    """A body of another length than announced, and frames that HTTP/2 forbids; the next call succeeds."""

    async def lie(connection: Http2Connection, stream: int, path: str) -> None:
        if path == "/ok":
            connection.answer(stream)
            return
        connection.h2.send_headers(stream, [(":status", "200"), ("content-length", "4")])
        connection.send()
        await asyncio.sleep(0)
        body = {"longer": b"longer", "shorter": b"s"}.get(fault, b"")
        kind_and_flags, number = b"\x00\x01", stream
        if fault == "unknown stream":
            number, body = stream + 1000, b"data"
        if fault == "too long a frame":
            body = bytes(20_000)
        connection.writer.write(len(body).to_bytes(3, "big") + kind_and_flags + number.to_bytes(4, "big") + body)

    async with calling(lie) as (upstream, http):
        with pytest.raises(httpx.TransportError) as caught:
            await http.default.post(f"{upstream.url}/lie", extensions={"total": 5.0})
        print(f"{fault}: {caught.value!r}")
        assert (await http.default.post(f"{upstream.url}/ok")).status_code == 200

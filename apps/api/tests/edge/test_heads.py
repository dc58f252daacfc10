"""Sizes of heads, trailers and chunk extensions: 431 beyond the limit, which endless input reaches after kilobytes."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .served import HEAD, LIMIT, request, served


def head_of(size: int, fields: int) -> bytes:
    """Return a head with this number of bytes, and this number of fields besides `Host`."""
    head = HEAD + b"".join(b"X-%04d: \r\n" % number for number in range(fields))
    return head[:-2] + b"x" * (size - len(head) - 2) + b"\r\n\r\n"


@settings(max_examples=60)
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

"""Bodies of responses: compressed ones, damaged ones, and those that are longer or shorter than announced."""

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from time import perf_counter

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_devstack.proving.upstream import Answer, Exchange, Upstream, head, reply
from tequipy_platform.http import DeadlineExceeded, HttpClients, ResponseTooLarge
from tequipy_platform.http.body import decoded

MIB = 1024 * 1024
DATA = b"The quick brown fox jumps over the lazy dog. " * 100


class Chunks(httpx.AsyncByteStream):
    """A body in chunks."""

    def __init__(self, chunks: Iterator[bytes] | list[bytes]) -> None:
        self._chunks = iter(chunks)

    async def __aiter__(self):  # type: ignore[no-untyped-def] # noqa: ANN204
        for chunk in self._chunks:
            yield chunk


def response(encoding: str, chunks: Iterator[bytes] | list[bytes]) -> httpx.Response:
    """Return a response with this Content-Encoding and body."""
    return httpx.Response(200, headers={"Content-Encoding": encoding}, stream=Chunks(chunks))


async def read(encoding: str, chunks: Iterator[bytes] | list[bytes], *, max_bytes: int = 10 * MIB) -> bytes:
    """Return the decoded body."""
    return b"".join([piece async for piece in decoded(response(encoding, chunks), max_bytes).aiter_raw()])


def raw_deflate(data: bytes) -> bytes:
    """Return the DEFLATE format without header and trailer."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def bomb(size: int) -> Iterator[bytes]:
    """Yield `size` zero bytes as gzip, in chunks of 64 KiB that hold 64 MiB each."""
    compressor = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    yield compressor.compress(b"") + compressor.flush(zlib.Z_FULL_FLUSH)
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    # After a full flush the next block refers to nothing before it, so that it can be repeated.
    block = compressor.compress(bytes(64 * MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    yield from (block for _ in range(size // (64 * MIB)))


@given(st.binary(max_size=3000), st.lists(st.integers(1, 50), min_size=1, max_size=20))
@pytest.mark.parametrize("kind", ["gzip", "x-gzip", "deflate", "raw", "members", "identity", ""])
def test_every_body_is_read_in_whatever_pieces_it_comes(kind: str, data: bytes, lengths: list[int]) -> None:
    """gzip with one or more members, deflate in both of its formats, and no compression at all."""
    encoding, body = {
        "gzip": ("GZIP", gzip.compress(data)),
        "x-gzip": ("x-gzip", gzip.compress(data)),
        "deflate": ("deflate", zlib.compress(data)),
        "raw": ("deflate", raw_deflate(data)),
        "members": ("gzip", gzip.compress(data[:7]) + gzip.compress(b"") + gzip.compress(data[7:])),
        "identity": (" Identity ", data),
        "": ("", data),
    }[kind]
    chunks: list[bytes] = []
    while body:
        chunks.append(body[: lengths[len(chunks) % len(lengths)]])
        body = body[len(chunks[-1]) :]
    assert asyncio.run(read(encoding, chunks)) == data


DAMAGED = {
    "gzip without its last byte": ("gzip", gzip.compress(DATA)[:-1]),
    "gzip without its end": ("gzip", gzip.compress(DATA)[:20]),
    "one byte of gzip": ("gzip", b"\x1f"),
    "gzip and garbage": ("gzip", gzip.compress(DATA) + b"garbage"),
    "gzip and the begin of another member": ("gzip", gzip.compress(DATA) + b"\x1f"),
    "gzip with a wrong checksum": ("gzip", gzip.compress(DATA)[:-8] + bytes(8)),
    "zlib as gzip": ("gzip", zlib.compress(DATA)),
    "text as gzip": ("gzip", b"not compressed"),
    "zlib without its last byte": ("deflate", zlib.compress(DATA)[:-1]),
    "raw deflate without its last byte": ("deflate", raw_deflate(DATA)[:-1]),
    "one byte of zlib": ("deflate", b"x"),
    "zlib and garbage": ("deflate", zlib.compress(DATA) + b"garbage"),
    "gzip as deflate": ("deflate", gzip.compress(DATA)),
    "text as deflate": ("deflate", b"not compressed"),
}


@pytest.mark.parametrize(("encoding", "body"), DAMAGED.values(), ids=DAMAGED)
async def test_a_damaged_body_is_an_error(encoding: str, body: bytes) -> None:
    """A body that is truncated, changed, of another format or followed by other bytes is no result."""
    for chunks in ([body], [body[:1], body[1:]], [bytes([byte]) for byte in body]):
        with pytest.raises(httpx.DecodingError):
            await read(encoding, chunks)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip,br", "deflate, gzip", "x", ","])
async def test_an_encoding_that_was_not_accepted_is_an_error(encoding: str) -> None:
    """Unknown encodings, and several one after the other, are refused before the body is read."""
    with pytest.raises(httpx.DecodingError):
        decoded(response(encoding, []), MIB)


async def test_an_empty_body_has_no_format() -> None:
    """The response to HEAD has an encoding and no body."""
    for encoding in ("gzip", "deflate"):
        assert await read(encoding, []) == b""


@pytest.mark.parametrize("max_bytes", [10 * MIB, 512 * MIB])
async def test_a_gzip_bomb_costs_little_memory(max_bytes: int) -> None:
    """10 GiB in 10 MiB of gzip: it is read to the limit, in pieces of 64 KiB, and other tasks run in between."""
    chunks = bomb(10 * 1024 * MIB)
    lags = []

    async def measure() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(0)
            lags.append(perf_counter() - began)

    length, longest = 0, 0
    next(chunks)
    first = next(chunks)  # is made before the measurement begins
    body = bomb(10 * 1024 * MIB)
    header = next(body)
    measuring = asyncio.create_task(measure())
    await asyncio.sleep(0)
    if max_bytes == 10 * MIB:
        tracemalloc.start()
    try:
        with pytest.raises(ResponseTooLarge):  # noqa: PT012 -- the pieces are what it is about
            async for piece in decoded(response("gzip", [header] + [first] * 160), max_bytes).aiter_raw():
                length, longest = length + len(piece), max(longest, len(piece))
        peak = tracemalloc.get_traced_memory()[1] / MIB if tracemalloc.is_tracing() else 0.0
    finally:
        tracemalloc.stop()
        measuring.cancel()
    print(
        f"a bomb of 10 GiB in {160 * len(first) / MIB:.1f} MiB, limit {max_bytes // MIB} MiB: read {length / MIB:.0f} "
        f"MiB in pieces of {longest // 1024} KiB, peak {peak:.2f} MiB, {len(lags)} turns of other tasks, the longest "
        f"wait {max(lags) * 1000:.1f} ms"
    )
    assert longest <= 64 * 1024
    assert peak < 2
    assert len(lags) > max_bytes / (2 * MIB)


async def send(exchange: Exchange, *parts: bytes) -> bool:
    """Send bytes as they are."""
    for part in parts:
        await exchange.write(part)
    return True


def sending(*parts: bytes) -> Answer:
    """Answer with bytes as they are, and leave the connection open."""
    return lambda exchange: send(exchange, *parts)


OK = b"HTTP/1.1 200 OK\r\n"
FORGED = OK + b"X-Forged: yes\r\nContent-Length: 6\r\n\r\nforged"


FOLLOWED = {
    "a response": OK + b"Content-Length: 2\r\n\r\nok" + FORGED,
    "the begin of a response": OK + b"Content-Length: 2\r\n\r\nok" + OK + b"X-Forged: ",
    "a line": OK + b"Content-Length: 2\r\n\r\nok\r\n",
    "a response after chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + FORGED,
    "a response after no body": OK + b"Content-Length: 0\r\n\r\n" + FORGED,
    "a response after 204": b"HTTP/1.1 204 No Content\r\n\r\n" + FORGED,
    "a response after 304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n" + FORGED,
}


@pytest.mark.parametrize("first", FOLLOWED.values(), ids=FOLLOWED)
async def test_what_follows_a_response_does_not_become_the_next_one(
    first: bytes, http: HttpClients, upstream: Upstream
) -> None:
    """Bytes beyond the announced length are dropped with their connection; the next call gets its own response."""
    url = upstream.route("/longer", sending(first))
    assert (await http.default.get(url)).content in {b"ok", b""}
    following = await http.default.post(upstream.route("/next", reply(body=b"next")))
    assert (following.content, following.headers.get("X-Forged")) == (b"next", None)
    async with http.default.stream("GET", url) as response:
        assert b"forged" not in b"".join([piece async for piece in response.aiter_bytes()])
    assert (await http.default.post(upstream.route("/next", reply(body=b"next")))).content == b"next"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        OK + b"Content-Length: 2, 3\r\n\r\nokk",
        OK + b"Content-Length: -1\r\n\r\nok",
        OK + b"Content-Length: 2x\r\n\r\nok",
        OK + b"Content-Length: +2\r\n\r\nok",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxx\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        b"HTTP/2 200 OK\r\n\r\n",
        b"garbage\r\n\r\n",
    ],
    ids=range(10),
)
async def test_contradictory_lengths_are_an_error(answer: bytes, http: HttpClients, upstream: Upstream) -> None:
    """A response whose length is ambiguous or invalid is refused."""
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        await http.default.post(upstream.route("/wrong", sending(answer)))
    print(f"{answer[17:60]!r}: {caught.value}")


async def test_a_shorter_body_than_announced_is_an_error(http: HttpClients, upstream: Upstream) -> None:
    """A connection that ends before its body does is no result, and one that goes on without it ends in time."""
    with pytest.raises(httpx.RemoteProtocolError):
        await http.default.post(upstream.url + "/truncated")
    with pytest.raises(DeadlineExceeded):
        await http.default.post(upstream.url + "/hang-in-body", extensions={"total": 0.3})


async def endless(exchange: Exchange) -> bool:
    """Send a body without end."""
    await exchange.write(head(200, {"Content-Type": "text/plain"}) + bytes(1024))
    while True:
        await exchange.write(bytes(65536))


async def test_an_endless_body_ends_at_its_limit(http: HttpClients, upstream: Upstream) -> None:
    """It is read as far as the call allows, at once or in pieces; its connection is closed."""
    url = upstream.route("/endless", endless)
    with pytest.raises(ResponseTooLarge):
        await http.default.get(url, extensions={"max_response_bytes": 100_000})
    length = 0
    with pytest.raises(ResponseTooLarge):  # noqa: PT012 -- the pieces are what it is about
        async with http.default.stream("GET", url, extensions={"max_response_bytes": 100_000}) as response:
            async for piece in response.aiter_bytes():
                length += len(piece)
    assert 0 < length <= 100_000
    async with asyncio.timeout(30):
        while upstream.connections:
            await asyncio.sleep(0.01)


async def test_a_compressed_response_says_nothing_of_its_compression(http: HttpClients, upstream: Upstream) -> None:
    """The caller gets the text, and no fields that describe the compressed body; the request says what it accepts."""
    asked = []

    async def compressed(exchange: Exchange) -> bool:
        asked.append(exchange.headers["accept-encoding"])
        return await reply(body=gzip.compress(DATA), content_encoding="gzip")(exchange)

    response = await http.default.get(upstream.route("/compressed", compressed))
    assert response.content == DATA
    assert {"content-encoding", "content-length"} & set(response.headers) == set()
    assert asked == ["gzip, deflate"]

"""Downloads of stored objects."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import Request, Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from tequipy_platform import ObjectNotFound, StoredObject
from tequipy_platform.testing import FrozenClock, MemoryStorage
from tequipy_platform.web import object_response

from .example_app import client, make_app, problem

CONTENT = bytes(range(10))


async def download(
    headers: list[tuple[str, str]], content: bytes = CONTENT, *, key: str = "things/1"
) -> tuple[httpx.Response, StoredObject]:
    """Send a GET for a stored object; `key` is what the app believes to be its key."""
    app, storage = make_app(), MemoryStorage(FrozenClock())
    stored = await storage.put("things/1", content)

    @app.get("/content")
    async def content_of(request: Request) -> Response:
        named = StoredObject(key, stored.size, stored.modified_at, stored.sha256)
        return await object_response(request, storage, named, filename="naïve.csv", media_type="text/csv")

    async with client(app) as http:
        return await http.get("/content", headers=headers), stored


async def test_a_download_has_its_name_type_length_and_tag() -> None:
    """The whole object comes with its SHA-256 as strong entity tag, and says that ranges are possible."""
    response, stored = await download([])
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["etag"] == f'"{stored.sha256}"'
    assert response.headers["content-length"] == "10"
    assert response.headers["content-type"].startswith("text/csv")
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["cache-control"] == "private, no-cache"
    assert response.headers["content-disposition"].startswith("attachment; filename=")


@pytest.mark.parametrize("tags", ['"{0}"', 'W/"{0}"', '"x", "{0}"', "*"])
async def test_a_known_object_is_not_sent_again(tags: str) -> None:
    """`If-None-Match` with the tag is answered with 304, also beside a range."""
    _, stored = await download([])
    response, _ = await download([("if-none-match", tags.format(stored.sha256)), ("range", "bytes=0-1")])
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == f'"{stored.sha256}"'


@pytest.mark.parametrize(
    ("wanted", "content"),
    [
        ("bytes=0-0", b"\0"),
        ("bytes=2-4", b"\2\3\4"),
        ("bytes=8-", b"\x08\x09"),
        ("bytes=8-99999999999", b"\x08\x09"),
        ("bytes=-3", b"\7\x08\x09"),
        ("bytes=-99", CONTENT),
        ("BYTES= 9-9 ", b"\x09"),
    ],
)
async def test_a_range_is_answered_with_206(wanted: str, content: bytes) -> None:
    """One range of bytes is sent, with its position and the length of the whole."""
    response, _ = await download([("range", wanted)])
    assert (response.status_code, response.content) == (206, content)
    start = CONTENT.index(content)
    assert response.headers["content-range"] == f"bytes {start}-{start + len(content) - 1}/10"
    assert response.headers["content-length"] == str(len(content))


@pytest.mark.parametrize(
    "headers",
    [
        [("range", "bytes=0-1,4-5")],
        [("range", "bytes=5-2")],
        [("range", "bytes=-")],
        [("range", "bytes=a-b")],
        [("range", "bytes=+0-1")],
        [("range", "lines=0-1")],
        [("range", "bytes=0-1"), ("range", "bytes=2-3")],
        [("range", "bytes=0-1"), ("if-range", '"other"')],
        [("range", "bytes=0-1"), ("if-range", "Thu, 26 Nov 2026 00:00:00 GMT")],
    ],
    ids=str,
)
async def test_other_ranges_give_the_whole_object(headers: list[tuple[str, str]]) -> None:
    """Several ranges, malformed ones, other units, and ranges of another version are ignored."""
    response, _ = await download(headers)
    assert (response.status_code, response.content) == (200, CONTENT)


async def test_a_range_of_this_version_is_sent() -> None:
    """`If-Range` with the present tag lets the range through."""
    _, stored = await download([])
    response, _ = await download([("range", "bytes=0-1"), ("if-range", f'"{stored.sha256}"')])
    assert (response.status_code, response.content) == (206, b"\0\1")


@pytest.mark.parametrize(("wanted", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)])
async def test_a_range_beyond_the_end_is_416(wanted: str, size: int) -> None:
    """A range that selects nothing is a problem that tells the length."""
    response, _ = await download([("range", wanted)], CONTENT[:size])
    assert (response.status_code, problem(response)["code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{size}"


async def test_an_empty_object_is_sent() -> None:
    """An object without content is 200 with the length 0."""
    response, _ = await download([], b"")
    assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("size", [0, 10])
async def test_a_missing_object_is_404_before_the_response_begins(size: int) -> None:
    """An object that has been deleted is a problem, and no cut download."""
    response, _ = await download([], CONTENT[:size], key="things/2")
    assert (response.status_code, problem(response)["code"]) == (404, ObjectNotFound.code)


@given(
    size=st.integers(1, 20),
    first=st.none() | st.integers(0, 25),
    last=st.none() | st.integers(0, 25),
)
def test_each_range_is_the_slice_that_it_names(size: int, first: int | None, last: int | None) -> None:
    """Whatever the positions, the content is that slice of the object, or the range is refused or ignored."""
    content = bytes(range(size))
    response, _ = asyncio.run(
        download([("range", f"bytes={'' if first is None else first}-{'' if last is None else last}")], content)
    )
    if first is None:
        expected = content[-last:] if last else b""
    else:
        expected = content[first:] if last is None else content[first : last + 1]
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        assert (response.status_code, response.content) == (200, content)
    elif expected:
        assert (response.status_code, response.content) == (206, expected)
    else:
        assert response.status_code == 416


async def test_a_client_that_disconnects_closes_the_stream_of_the_store() -> None:
    """The store's stream is closed at once, not when the garbage collector finds it."""
    closed = asyncio.Event()

    class Endless(MemoryStorage):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
            del key, start, stop
            try:
                while True:
                    yield bytes(65536)
            finally:
                closed.set()

    sent: list[Message] = []
    disconnected = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 3:
            disconnected.set()
        await asyncio.sleep(0)

    async def receive() -> Message:
        await disconnected.wait()
        return {"type": "http.disconnect"}

    storage = Endless(FrozenClock())
    stored = StoredObject("things/1", 10**9, FrozenClock().now(), "0" * 64)
    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.3"}}
    response = await object_response(Request(scope), storage, stored, filename="a", media_type="text/csv")
    async with asyncio.timeout(10):
        await response(scope, receive, send)
    assert closed.is_set()

"""Object storage: one contract suite for S3, the folder, the memory store and the fake."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tequipy_platform import ObjectExists, ObjectNotFound, ObjectStorage, ObjectTooLarge, _storage

from .s3_settings import read

PART = 5 * 1024 * 1024
"""What is longer is stored in parts, and then copied to its key."""

Content = Callable[[], bytes | AsyncIterator[bytes]]


async def chunks(size: int, *, chunk: int = 1_000_003) -> AsyncIterator[bytes]:
    for start in range(0, size, chunk):
        yield b"x" * min(chunk, size - start)


CONTENTS = {
    "bytes": lambda: b"new",
    "many bytes": lambda: b"x" * (PART + 1),
    "short stream": lambda: chunks(150_000),
    "long stream": lambda: chunks(2 * PART + 1),
}


async def keys(storage: ObjectStorage, prefix: str = "") -> list[str]:
    return sorted([stored.key async for stored in storage.list(prefix)])


@pytest.mark.parametrize("size", [0, 1, 150_000, PART - 1, PART, PART + 1, 3 * PART])
@pytest.mark.parametrize("form", ["bytes", "stream"])
async def test_a_stored_object_can_be_read(storage: ObjectStorage, size: int, form: str) -> None:
    """Bytes and streams of any size are read back unchanged, and described by key, size, time and SHA-256."""
    stored = await storage.put("reports/1", b"x" * size if form == "bytes" else chunks(size))
    assert (stored.key, stored.size, stored.modified_at.tzinfo is not None) == ("reports/1", size, True)
    assert stored.sha256 == hashlib.sha256(b"x" * size).hexdigest()
    assert await storage.head("reports/1") == stored
    assert await read(storage, "reports/1") == b"x" * size
    assert await keys(storage) == ["reports/1"]


async def test_finished_objects_are_not_removed(storage: ObjectStorage) -> None:
    """Removing what killed processes have left removes no object, however old it is."""
    stored = await storage.put("a", chunks(PART + 1))
    assert await storage.remove_unfinished(before=stored.modified_at + timedelta(days=1)) == 0
    assert await storage.head("a") == stored


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
async def test_a_key_is_never_overwritten(storage: ObjectStorage, content: Content) -> None:
    """A second object under the same key is refused, and the first one stays."""
    first = await storage.put("a", b"old")
    with pytest.raises(ObjectExists):
        await storage.put("a", content())
    assert await read(storage, "a") == b"old"
    assert await storage.head("a") == first
    assert await keys(storage) == ["a"]


@pytest.mark.parametrize("size", [1000, PART + 1])
async def test_of_concurrent_puts_one_wins(storage: ObjectStorage, size: int) -> None:
    """Of eight puts under one key at the same time one succeeds, and the object is that of the winner."""

    async def put(number: int) -> object:
        async def content() -> AsyncIterator[bytes]:
            yield bytes([number]) * size

        return await storage.put("a", content())

    results = await asyncio.gather(*(put(number) for number in range(8)), return_exceptions=True)
    winners = [number for number, result in enumerate(results) if not isinstance(result, Exception)]
    assert [type(result) for result in results if isinstance(result, Exception)] == [ObjectExists] * 7
    assert await read(storage, "a") == bytes(winners) * size
    assert await storage.head("a") == results[winners[0]]


@pytest.mark.parametrize("before", [0, 150_000, 2 * PART])
@pytest.mark.parametrize("error", [RuntimeError("broken"), FileNotFoundError("broken"), ObjectNotFound("broken")])
async def test_a_failed_stream_stores_nothing(storage: ObjectStorage, before: int, error: Exception) -> None:
    """A stream that fails stores nothing, and its error reaches the caller as it is, whatever it is."""

    async def broken() -> AsyncIterator[bytes]:
        async for chunk in chunks(before):
            yield chunk
        raise error

    with pytest.raises(type(error)) as raised:
        await storage.put("a", broken())
    assert raised.value is error
    assert await keys(storage) == []
    await storage.put("a", b"whole")


async def test_a_cancelled_put_stores_nothing_and_ends_its_stream(storage: ObjectStorage) -> None:
    """A put that is cancelled in the middle of its stream stores nothing, and the stream is closed."""
    reached, closed = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"x" * (2 * PART)
            reached.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    task = asyncio.create_task(storage.put("a", endless()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert await keys(storage) == []


async def test_a_stream_that_is_refused_is_closed(storage: ObjectStorage) -> None:
    """A stream of which only the beginning was read gives its resources back when the put ends."""
    closed = asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks(3 * PART):
                yield chunk
        finally:
            closed.set()

    await storage.put("a", b"old")
    stream = content()  # held until the end, so that it is not closed for want of references
    with pytest.raises(ObjectExists):
        await storage.put("a", stream)
    assert closed.is_set()


async def test_an_object_has_a_limit(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that exceeds the limit is refused, and stores nothing."""
    monkeypatch.setattr(_storage, "MAX_OBJECT_BYTES", PART + 1)
    with pytest.raises(ObjectTooLarge):
        await storage.put("a", chunks(PART + 2))
    assert await keys(storage) == []
    assert (await storage.put("a", chunks(PART + 1))).size == PART + 1


@pytest.mark.parametrize("start", [0, 1, 4, 9, 10, 11])
@pytest.mark.parametrize("stop", [1, 4, 5, 10, 11, 100, None])
async def test_a_range_is_a_slice(storage: ObjectStorage, start: int, stop: int | None) -> None:
    """A range gives what a slice of the content gives, also beyond the end; an empty one raises `ValueError`."""
    await storage.put("a", b"0123456789")
    if stop is not None and stop <= start:
        with pytest.raises(ValueError, match="not a range"):
            await read(storage, "a", start=start, stop=stop)
    else:
        assert await read(storage, "a", start=start, stop=stop) == b"0123456789"[start:stop]


async def test_ranges_of_an_empty_and_of_a_missing_object(storage: ObjectStorage) -> None:
    """A range of an empty object is empty, and one of a missing object raises `ObjectNotFound`."""
    await storage.put("a", b"")
    assert await read(storage, "a", start=0, stop=5) == b""
    assert await read(storage, "a", start=5) == b""
    with pytest.raises(ObjectNotFound):
        await read(storage, "b", start=5)
    with pytest.raises(ValueError, match="not a range"):
        await read(storage, "a", start=-1)


async def test_missing_objects(storage: ObjectStorage) -> None:
    """Reading a missing object raises `ObjectNotFound`, deleting it is no error."""
    with pytest.raises(ObjectNotFound):
        await storage.head("a")
    with pytest.raises(ObjectNotFound):
        await read(storage, "a")
    await storage.delete("a")


async def test_deleted_objects_are_gone(storage: ObjectStorage) -> None:
    """After a delete the key can be used again, and has the SHA-256 of its new content."""
    await storage.put("a", b"1")
    await storage.delete("a")
    with pytest.raises(ObjectNotFound):
        await storage.head("a")
    await storage.put("a", b"2")
    assert await read(storage, "a") == b"2"
    assert (await storage.head("a")).sha256 == hashlib.sha256(b"2").hexdigest()


async def test_listing_is_by_whole_segments(storage: ObjectStorage) -> None:
    """A prefix consists of complete path segments, and what the storage keeps for itself is never listed."""
    for key in ("a/1", "a/2", "ab/1"):
        await storage.put(key, b"12")
    await storage.ping()
    assert await keys(storage, "a") == await keys(storage, "a/") == ["a/1", "a/2"]
    assert await keys(storage) == ["a/1", "a/2", "ab/1"]
    assert [(stored.size, stored.sha256) async for stored in storage.list("ab")] == [(2, None)]


@example("a/b")
@example("a//b")
@example("../a")
@example(".tequipy/ping")
@example("a\n")
@example("é")
@example("x" * 201)
@example("a/" * 300 + "a")
@given(st.text(min_size=1) | st.from_regex(_storage._KEY, fullmatch=True))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_key_is_kept_as_it_is_or_refused(storage: ObjectStorage, key: str) -> None:
    """Any text is either a key under which the object is found and listed, or raises `ValueError` everywhere."""
    if _storage._KEY.fullmatch(key):
        key = f"{uuid4()}/{key}"[:512]  # a folder remembers the folders of other examples
        await storage.put(key, b"1")
        assert (await storage.head(key)).key == key
        assert await keys(storage) == [key]
        await storage.delete(key)
        return
    with pytest.raises(ValueError, match="a key has"):
        await storage.put(key, b"1")
    with pytest.raises(ValueError, match="a key has"):
        await read(storage, key)
    with pytest.raises(ValueError, match="a key has"):
        await storage.head(key)
    with pytest.raises(ValueError, match="a key has"):
        await storage.delete(key)
    with pytest.raises(ValueError, match="a key has"):
        await storage.presign(key, filename="a")
    if key.removesuffix("/"):
        with pytest.raises(ValueError, match="a key has"):
            await keys(storage, f"{key}/")


@pytest.mark.parametrize("expires_in", [timedelta(0), timedelta(seconds=0.9), timedelta(days=7, seconds=1)])
async def test_a_presigned_url_lives_a_second_to_a_week(storage: ObjectStorage, expires_in: timedelta) -> None:
    """Any other lifetime raises `ValueError`."""
    with pytest.raises(ValueError, match="a second to a week"):
        await storage.presign("a", filename="a", expires_in=expires_in)

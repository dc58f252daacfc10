"""Object storage: one contract suite for the folder, the memory store and the fake."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tequipy_platform import ObjectExists, ObjectNotFound, ObjectStorage, Unavailable
from tequipy_platform.storage import StorageSettings, build_storage
from tequipy_platform.testing import FrozenClock, MemoryStorage


@pytest.fixture(params=["folder", "memory", "fake"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStorage:
    built: dict[str, Callable[[], ObjectStorage]] = {
        "folder": lambda: build_storage(StorageSettings(url=f"file://{tmp_path}/objects")),
        "memory": lambda: build_storage(StorageSettings(url="memory://")),
        "fake": lambda: MemoryStorage(FrozenClock()),
    }
    return built[request.param]()


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"x" * 50_000


async def read(storage: ObjectStorage, key: str) -> bytes:
    return b"".join([chunk async for chunk in storage.get(key)])


async def test_a_stored_object_can_be_read(storage: ObjectStorage) -> None:
    """Bytes and streams can be read back, and are described by key and size."""
    stored = await storage.put("reports/1", b"hello")
    assert (stored.key, stored.size, stored.modified_at.tzinfo is not None) == ("reports/1", 5, True)
    assert (await storage.put("reports/2", chunks())).size == 150_000
    assert await read(storage, "reports/1") == b"hello"
    assert await read(storage, "reports/2") == b"x" * 150_000
    assert await storage.head("reports/1") == stored


@pytest.mark.parametrize("content", [lambda: b"new", chunks])
async def test_a_key_is_never_overwritten(
    storage: ObjectStorage, content: Callable[[], bytes | AsyncIterator[bytes]]
) -> None:
    """A second object under the same key is refused, and the first one stays."""
    await storage.put("a", b"old")
    with pytest.raises(ObjectExists):
        await storage.put("a", content())
    assert await read(storage, "a") == b"old"
    assert [stored.key async for stored in storage.list()] == ["a"]


async def test_a_refused_stream_leaves_no_file(tmp_path: Path) -> None:
    """The temporary file of a stream whose key is taken is removed."""
    async with build_storage(StorageSettings(url=f"file://{tmp_path}/objects")) as storage:
        await storage.put("a", b"old")
        with pytest.raises(ObjectExists):
            await storage.put("a", chunks())
    assert [path.name for path in (tmp_path / "objects").rglob("*") if path.is_file()] == ["a"]


async def test_a_failed_stream_stores_nothing(storage: ObjectStorage) -> None:
    """A stream that fails stores nothing."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 10_000_000
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await storage.put("a", broken())
    assert [stored.key async for stored in storage.list()] == []
    await storage.put("a", b"whole")


async def test_missing_objects(storage: ObjectStorage) -> None:
    """Reading a missing object raises `ObjectNotFound`, deleting it is no error."""
    with pytest.raises(ObjectNotFound):
        await storage.head("a")
    with pytest.raises(ObjectNotFound):
        await read(storage, "a")
    await storage.delete("a")


async def test_deleted_objects_are_gone(storage: ObjectStorage) -> None:
    """After a delete the key can be used again."""
    await storage.put("a", b"1")
    await storage.delete("a")
    await storage.put("a", b"2")
    assert await read(storage, "a") == b"2"


async def test_listing_is_by_whole_segments(storage: ObjectStorage) -> None:
    """A prefix consists of complete path segments, and the health check's object is never listed."""
    for key in ("a/1", "a/2", "ab/1"):
        await storage.put(key, b"")
    await storage.ping()
    assert sorted([stored.key async for stored in storage.list("a")]) == ["a/1", "a/2"]
    assert sorted([stored.key async for stored in storage.list()]) == ["a/1", "a/2", "ab/1"]


async def test_a_folder_that_became_a_file_is_unavailable(tmp_path: Path) -> None:
    """All calls raise `Unavailable` when the folder has been replaced by a file."""
    async with build_storage(StorageSettings(url=f"file://{tmp_path}/objects")) as storage:
        await storage.ping()
        (tmp_path / "objects").rename(tmp_path / "elsewhere")
        (tmp_path / "objects").touch()
        with pytest.raises(Unavailable):
            await storage.ping()
        with pytest.raises(Unavailable):
            await storage.put("a", b"")


async def test_building_does_no_io(tmp_path: Path) -> None:
    """Building the storage does no I/O."""
    build_storage(StorageSettings(url=f"file://{tmp_path}/objects"))
    assert not (tmp_path / "objects").exists()

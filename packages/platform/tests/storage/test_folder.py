"""What only a folder does: its files, its faults, and objects of other programs."""

import asyncio
import hashlib
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tequipy_platform import ObjectExists, Unavailable
from tequipy_platform.storage import ObstoreStorage, StorageSettings, build_storage

from .s3_settings import read
from .test_storage import PART, chunks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def storage(folder: Path) -> ObstoreStorage:
    return build_storage(StorageSettings(url=folder.as_uri()))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def replace_by_a_file(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.touch()


async def test_an_object_is_a_file_and_a_refused_stream_leaves_none(storage: ObstoreStorage, folder: Path) -> None:
    """An object is a file, and its SHA-256 another one; a refused stream and a delete leave none."""
    await storage.put("a/b", b"old")
    with pytest.raises(ObjectExists):
        await storage.put("a/b", chunks(2 * PART))
    assert files(folder) == [".tequipy/sha256/a/b", "a/b"]
    assert (folder / "a/b").read_bytes() == b"old"
    await storage.delete("a/b")
    assert files(folder) == []


KILLED = """
import asyncio, os, signal, sys
from tequipy_platform.storage import StorageSettings, build_storage

async def content():
    for _ in range(4):
        yield b"x" * 6_000_000
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(build_storage(StorageSettings(url=sys.argv[1])).put("a", content()))
"""


async def test_what_a_killed_put_has_left_is_removed(storage: ObstoreStorage, folder: Path) -> None:
    """A process that is killed during a put leaves a file, which no list shows, and which is removed when it is old."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, folder.as_uri())
    assert await process.wait() == -signal.SIGKILL
    assert len(files(folder)) == 1
    assert [stored async for stored in storage.list()] == []
    now = datetime.now(UTC)
    assert await storage.remove_unfinished(before=now - timedelta(days=1)) == 0
    assert len(files(folder)) == 1
    assert await storage.remove_unfinished(before=now + timedelta(days=1)) == 1
    assert files(folder) == []


@pytest.mark.parametrize("fault", ["removed", "of another file", "damaged"])
async def test_a_lost_digest_is_computed_again(storage: ObstoreStorage, folder: Path, fault: str) -> None:
    """Without a digest that belongs to the file, `head` computes it from the content, and keeps it."""
    stored = await storage.put("a", b"content")
    kept = folder / ".tequipy/sha256/a"
    if fault == "of another file":
        kept.write_text(f"{hashlib.sha256(b'other').hexdigest()} 1-2-3")
    elif fault == "damaged":
        kept.write_bytes(os.urandom(50))
    else:
        kept.unlink()
    assert await storage.head("a") == stored
    assert kept.read_text().partition(" ")[0] == stored.sha256


async def test_a_file_of_another_program_is_an_object(storage: ObstoreStorage, folder: Path) -> None:
    """A file that release 0.1.0 or another program wrote can be read, and has a SHA-256."""
    write(folder / "old", b"content")
    assert (await storage.head("old")).sha256 == hashlib.sha256(b"content").hexdigest()
    assert await read(storage, "old") == b"content"


async def test_a_folder_that_became_a_file_is_unavailable(storage: ObstoreStorage, folder: Path) -> None:
    """All calls raise `Unavailable` when the folder has been replaced by a file."""
    await storage.ping()
    replace_by_a_file(folder)
    with pytest.raises(Unavailable):
        await storage.ping()
    with pytest.raises(Unavailable):
        await storage.put("a", b"")
    with pytest.raises(Unavailable):
        await storage.put("a", chunks(2 * PART))


@pytest.mark.usefixtures("storage")
def test_building_does_no_io(folder: Path) -> None:
    """Building the storage does no I/O."""
    assert not folder.exists()


async def test_a_folder_presigns_nothing(storage: ObstoreStorage) -> None:
    """A folder has no server from which an object could be downloaded: the URL is None."""
    assert await storage.presign("a", filename="a.pdf") is None

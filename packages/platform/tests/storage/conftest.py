"""S3 as moto's server, and the stores of the contract suite."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tequipy_platform import ObjectStorage
from tequipy_platform.storage import StorageSettings, build_storage
from tequipy_platform.testing import FrozenClock, MemoryStorage

from .s3_settings import s3_settings


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Yield the address of moto's server, which ends with the tests."""
    program = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("s3_program.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        yield f"http://127.0.0.1:{program.stdout.readline().strip()}"
        program.stdin.close()


@pytest.fixture
def s3(s3_server: str) -> StorageSettings:
    """Return the settings of a new bucket with a prefix."""
    bucket = f"bucket-{uuid4()}"
    assert httpx.put(f"{s3_server}/{bucket}").status_code == httpx.codes.OK
    return s3_settings(s3_server, bucket=bucket)


@pytest.fixture(params=["folder", "memory", "s3", "fake"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStorage:
    """Return each store, and the fake."""
    built: dict[str, Callable[[], ObjectStorage]] = {
        "folder": lambda: build_storage(StorageSettings(url=f"file://{tmp_path}/objects")),
        "memory": lambda: build_storage(StorageSettings(url="memory://")),
        "s3": lambda: build_storage(request.getfixturevalue("s3")),
        "fake": lambda: MemoryStorage(FrozenClock()),
    }
    return built[request.param]()

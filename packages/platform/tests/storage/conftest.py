"""The stores of the contract suite; S3 is the server of moto."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tequipy_devstack.proving.s3 import new_bucket
from tequipy_platform import ObjectStorage
from tequipy_platform.storage import StorageSettings, build_storage
from tequipy_platform.testing import FrozenClock, MemoryStorage

from .s3_settings import s3_settings


@pytest.fixture
def s3(s3_server: str) -> StorageSettings:
    """Return the settings of a new bucket with a prefix."""
    return s3_settings(s3_server, bucket=new_bucket(s3_server))


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

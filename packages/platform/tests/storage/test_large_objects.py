"""Objects of a gibibyte are stored and read in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tequipy_platform.storage import StorageSettings

from .s3_settings import ACCESS_KEY, SECRET_KEY

MOST = 64
"""MiB by which a put and a get may raise the peak memory: the four parts of 5 MiB that are sent at once, and copies."""


def growth(size: int, settings: dict[str, object]) -> dict[str, float]:
    """Return what a process prints that stores and reads an object of so many MiB."""
    program = Path(__file__).with_name("memory_program.py")
    result = subprocess.run(
        [sys.executable, program, str(size), json.dumps(settings)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return {name: float(value) for name, value in json.loads(result.stdout).items()}


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", ["folder", "s3"])
def test_a_gibibyte_needs_little_memory(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The peak memory of a put and a get of 1 GiB is that of 64 MiB, and a few parts above that of a small object."""
    settings: dict[str, object] = {"url": (tmp_path / "objects").as_uri()}
    if store == "s3":
        s3: StorageSettings = request.getfixturevalue("s3")
        keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
        # moto joins and copies a gibibyte in memory before it answers.
        settings = {"url": s3.url, "endpoint": s3.endpoint, "timeout": 300, **keys}
    for size in (64, 1024):
        found = growth(size, settings)
        print(f"{store}, {size} MiB: put {found['put_seconds']:.1f} s, get {found['get_seconds']:.1f} s", end="; ")
        print(f"peak memory {found['base']:.0f} MiB, +{found['put']:.0f} after put, +{found['get']:.0f} after get")
        assert found["get"] < MOST

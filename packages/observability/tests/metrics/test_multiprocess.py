"""Scrapes of a process with children, whose metrics files appear and disappear at any moment."""

import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from tequipy_observability.metrics.multiprocess import SharedRegistry


@pytest.fixture
def registry(tmp_path: Path) -> SharedRegistry:
    return SharedRegistry(tmp_path, CollectorRegistry())


def write(folder: Path, name: str, metric: str, value: float) -> None:
    """Write one sample to a file as a child does."""
    file = MmapedDict(str(folder / name))  # type: ignore[no-untyped-call]  # -- it takes a path
    file.write_value(mmap_key(metric, metric, [], [], "Help."), value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


def test_a_file_without_content_is_no_error(registry: SharedRegistry, tmp_path: Path) -> None:
    """A child that has just created its file, and not yet given it a size, does not make the scrape fail."""
    write(tmp_path, "counter_1.db", "things_total", 2)
    (tmp_path / "counter_2.db").touch()
    assert b"things_total 2.0" in generate_latest(registry)


def test_a_file_that_disappears_is_no_error(
    registry: SharedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a concurrent scrape removes after this one has listed it does not make the scrape fail."""
    write(tmp_path, "counter_1.db", "things_total", 2)
    gauge = f"gauge_all_{os.getpid()}.db"
    write(tmp_path, gauge, "level", 1)
    read = MultiProcessCollector.merge

    def remove_and_read(files: list[str]) -> object:
        (tmp_path / gauge).unlink(missing_ok=True)
        return read(files)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(MultiProcessCollector, "merge", remove_and_read)
    assert b"things_total 2.0" in generate_latest(registry)

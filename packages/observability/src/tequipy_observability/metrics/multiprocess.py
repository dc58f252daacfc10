"""Metrics of a process that forks: each child writes to its own files, and a scrape sums them up.

This is prometheus-client's multiprocess mode, which the variable `PROMETHEUS_MULTIPROC_DIR` must enable before the
library is imported. The mode supports the library's own metrics alone. Here custom collectors of other packages
(`db_pool_*`, `cache_*`) are included too: each child periodically writes their samples to its files.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector


class SharedRegistry(CollectorRegistry):
    """Collects from all processes that wrote to `folder`: counters of dead ones too, gauges of living ones only."""

    def __init__(self, folder: Path, own: CollectorRegistry) -> None:
        super().__init__()
        self._folder = folder
        self._own = own
        self._custom: list[Collector] = []
        self._written: tuple[int, dict[str, MmapedDict]] = (0, {})

    def register(self, collector: Collector) -> None:
        """Register a collector; the samples of custom collectors are written by `write_samples`."""
        super().register(collector)
        if not isinstance(collector, MetricWrapperBase):
            self._custom.append(collector)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics summed over all processes, and those of this process alone."""
        self._remove_dead_processes()
        yield from self._merge()
        yield from self._own.collect()

    def _merge(self) -> Iterable[Metric]:
        """Return the metrics in the files, while other processes create and concurrent scrapes remove some of them."""
        while True:
            # The library cannot read a file that was created a moment ago and has no size yet.
            files = [str(file) for file in self._folder.glob("*.db") if _has_content(file)]
            with suppress(FileNotFoundError):  # removed since it was listed; each retry has fewer files
                merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]  # -- it takes paths
                return merged

    def write_samples(self) -> None:
        """Write the current counters and gauges of this process's custom collectors; other types are skipped."""
        files = self._files()
        for family in self._families():
            if (file := files.get(family.type)) is None:
                continue
            for sample in family.samples:
                names, values = list(sample.labels), list(sample.labels.values())
                key = mmap_key(family.name, sample.name, names, values, family.documentation)
                file.write_value(key, sample.value, 0.0)  # type: ignore[no-untyped-call]  # -- key, value, timestamp

    def _families(self) -> Iterable[Metric]:
        return (family for collector in self._custom for family in collector.collect())

    def _files(self) -> dict[str, MmapedDict]:
        pid, files = self._written
        if pid != os.getpid():  # after a fork the child needs its own files
            pid = os.getpid()
            # Named like the library's own files, so that the library sums them up.
            names = {"counter": f"counter_{pid}-noted.db", "gauge": f"gauge_livesum_{pid}-noted.db"}
            files = {kind: MmapedDict(str(self._folder / name)) for kind, name in names.items()}  # type: ignore[no-untyped-call]  # -- it takes a path
            self._written = pid, files
        return files

    def _remove_dead_processes(self) -> None:
        """Remove the gauge files of dead processes, including those that were killed."""
        for file in self._folder.glob("gauge_*.db"):
            pid = file.stem.rpartition("_")[2].removesuffix("-noted")
            if not _is_alive(int(pid)):
                file.unlink(missing_ok=True)


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the id was reused by a process of another user
        return False
    return True

"""The metrics of a process that forks: each child writes into files of its own, whoever is asked adds them up.

This is prometheus-client's multiprocess mode, which has to be chosen by `PROMETHEUS_MULTIPROC_DIR` before the library
is imported. It knows the library's own metrics alone; here the collectors of other packages (`db_pool_*`, `cache_*`)
take part: each child notes down what they say, every now and then.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector


class SharedRegistry(CollectorRegistry):
    """Collects from every process that wrote into `folder`: counters of the dead too, gauges of the living alone."""

    def __init__(self, folder: Path, own: CollectorRegistry) -> None:
        super().__init__()
        self._folder = folder
        self._own = own
        self._foreign: list[Collector] = []
        self._noted: tuple[int, dict[str, MmapedDict]] = (0, {})

    def register(self, collector: Collector) -> None:
        """Take part in the collection of this process; a collector that is no metric of the library has to be noted."""
        super().register(collector)
        if not isinstance(collector, MetricWrapperBase):
            self._foreign.append(collector)

    def collect(self) -> Iterator[Metric]:
        """Yield what all processes have counted, and what is this process's alone."""
        self._forget_the_dead()
        everybody: Collector = MultiProcessCollector(None, path=str(self._folder))  # type: ignore[no-untyped-call]  # -- it takes a registry to join and a path
        yield from everybody.collect()
        yield from self._own.collect()

    def note(self) -> None:
        """Write down what the collectors say in this process: their counters and gauges; the rest is left out."""
        files = self._files()
        for family in self._families():
            if (file := files.get(family.type)) is None:
                continue
            for sample in family.samples:
                names, values = list(sample.labels), list(sample.labels.values())
                key = mmap_key(family.name, sample.name, names, values, family.documentation)
                file.write_value(key, sample.value, 0.0)  # type: ignore[no-untyped-call]  # -- key, value, timestamp

    def _families(self) -> Iterable[Metric]:
        return (family for collector in self._foreign for family in collector.collect())

    def _files(self) -> dict[str, MmapedDict]:
        pid, files = self._noted
        if pid != os.getpid():  # a child has files of its own
            pid = os.getpid()
            # Named as the library names its own, so that it adds them up as its own.
            names = {"counter": f"counter_{pid}-noted.db", "gauge": f"gauge_livesum_{pid}-noted.db"}
            files = {kind: MmapedDict(str(self._folder / name)) for kind, name in names.items()}  # type: ignore[no-untyped-call]  # -- it takes a path
            self._noted = pid, files
        return files

    def _forget_the_dead(self) -> None:
        """Remove the gauges of processes that are gone, also of those that had no time to say so."""
        for file in self._folder.glob("gauge_*.db"):
            pid = file.stem.rpartition("_")[2].removesuffix("-noted")
            if not _is_alive(int(pid)):
                file.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's: the number was given away again
        return False
    return True

"""Kills and freezes of processes and servers at random, and what the processes use meanwhile."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from tequipy_devstack.processes import family, freeze_family
from tequipy_devstack.proving import Api, Balancer, Program, Sample, eventually
from tequipy_devstack.servers import Server

_READINESS_SECONDS = 1.5
"""Longer than a state of readiness is remembered, and a balancer takes to poll it."""
WARM_AFTER = 20.0
"""Seconds after its start from which the growth of a process counts."""


class Usage(NamedTuple):
    """What a process uses together with its children."""

    at: float
    megabytes: float
    connections: int
    files: int


@dataclass
class Soak:
    """Two API processes, a worker, a scheduler and a relay with three servers, and the faults that they get."""

    programs: Mapping[str, Program]
    servers: Mapping[str, Server]
    balancer: Balancer
    chance: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    windows: list[tuple[float, float]] = field(default_factory=list)
    """Begin of each fault, and the time when everything was ready again."""
    ended: list[str] = field(default_factory=list)
    """Processes that ended by themselves, which a supervisor starts again."""
    usage: dict[tuple[str, int], list[Usage]] = field(default_factory=dict)
    """What each process has used, by its name and pid."""

    def disturb(self) -> None:
        """Kill or freeze one process or server, and wait until the API is ready."""
        name = self.chance.choice([*self.programs, *self.servers])
        kinds: list[Callable[[str], None]] = [self._kill, self._freeze]
        if name == "worker":
            kinds.append(self._kill_child)
        fault = self.chance.choice(kinds)
        began = time.monotonic()
        fault(name)
        time.sleep(_READINESS_SECONDS)
        self.supervise()
        eventually("both are ready", self._is_ready, within=120)
        self.windows.append((began, time.monotonic()))
        self.faults[f"{name} {'frozen' if fault == self._freeze else 'killed'}"] += 1

    def supervise(self) -> None:
        """Start again what has ended by itself."""
        for name, program in self.programs.items():
            if program.status is not None:
                self.ended.append(f"{name}: {program.status}")
                program.start()

    def measure(self) -> None:
        """Record what each process uses now, if it has run for some time."""
        for name, program in self.programs.items():
            with suppress(psutil.Error):
                process = psutil.Process(program.pid)
                if time.time() - process.create_time() < WARM_AFTER:
                    continue
                members = family(program.pid)
                used = Usage(
                    time.monotonic(),
                    sum(member.memory_info().rss for member in members) / 1e6,
                    sum(len(member.net_connections("tcp")) for member in members),
                    sum(member.num_fds() for member in members),
                )
                self.usage.setdefault((name, program.pid), []).append(used)

    def outside(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the samples that no fault overlaps."""
        return [
            sample
            for sample in samples
            if not any(sample.sent_at < end and sample.ended_at > begin for begin, end in self.windows)
        ]

    def growth(self) -> dict[str, tuple[Usage, Usage]]:
        """Return the first and last use of each process that lived longest under its name."""
        longest: dict[str, tuple[Usage, Usage]] = {}
        for (name, _), (first, *_, last) in ((key, [*used, used[-1]]) for key, used in self.usage.items()):
            if name not in longest or last.at - first.at > longest[name][1].at - longest[name][0].at:
                longest[name] = (first, last)
        return longest

    def _is_ready(self) -> bool:
        apis = [program for program in self.programs.values() if isinstance(program, Api)]
        return len(self.balancer.ready) == len(apis) and all(api.is_ready() for api in apis)

    def _kill(self, name: str) -> None:
        if name in self.programs:
            self.programs[name].kill()
            self.programs[name].start()
        else:
            self.servers[name].kill()
            time.sleep(self.chance.uniform(0, 3))
            self.servers[name].restart()

    def _kill_child(self, name: str) -> None:
        if children := psutil.Process(self.programs[name].pid).children():
            self.chance.choice(children).kill()

    def _freeze(self, name: str) -> None:
        if name in self.programs:
            members = freeze_family(self.programs[name].pid)
            time.sleep(self.chance.uniform(0.5, 5))
            for member in members:
                with suppress(psutil.NoSuchProcess):
                    member.resume()
        else:
            self.servers[name].freeze()
            time.sleep(self.chance.uniform(0.5, 5))
            self.servers[name].thaw()

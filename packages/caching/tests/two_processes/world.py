"""Processes with real caches, the model of Redis between them, and one simulated clock."""

import asyncio
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import cache
from typing import Any, Final

import pytest
import redis.utils
from hypothesis.internal.cache import LRUCache
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from tequipy_caching import CachePolicy
from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.cache.recovery import RecoveryQueue
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.testing import NullMetrics, TurnableClock

from .redis_model import RedisModel, Snapshot
from .simulated_network import Network, SimulatedLoop

PREFIX: Final = "tequipy"
L2_TIMEOUT: Final = 0.25
POLICY: Final = CachePolicy(ttl=600, jitter=0, hard_timeout=60)
_CLOCK: Final = TurnableClock()
_CALMS_WITHIN: Final = 10_000
_TICK: Final = 1e-6


def simulate(patch: pytest.MonkeyPatch) -> None:
    """Make all cache modules read the simulated clock, and make redis-py read its own version only once."""
    patch.setattr(redis.utils, "get_lib_version", cache(redis.utils.get_lib_version))
    for name, module in list(sys.modules.items()):
        if name.startswith("tequipy_caching.") and getattr(module, "monotonic", None) is time.monotonic:
            patch.setattr(module, "monotonic", _now)


def depend_on_the_seed_alone(patch: pytest.MonkeyPatch) -> None:
    """Make a seed choose the same history in every run.

    Hypothesis also chooses constants of the source files that happen to be imported, so that a history would depend on
    the tests that run in the same process.
    """
    patch.setattr(providers, "_get_local_constants", Constants)
    patch.setattr(providers, "CONSTANTS_CACHE", LRUCache(1024))


def _now() -> float:
    return _CLOCK.seconds


class Process:
    """A manager on its own event loop; a restarted process keeps its `number`."""

    def __init__(self, network: Network, number: int, database: int = 0) -> None:
        self.number = number
        self.running = True
        """Whether it is not suspended."""
        self.held = False
        self.isolated = False
        self.channel_cut = False
        self.ended = False
        self.loop = SimulatedLoop(_now, network, self)
        link = RedisLink(f"redis://redis:6379/{database}", prefix=PREFIX, timeout=L2_TIMEOUT, metrics=NullMetrics())
        self.manager = TieredCacheManager(
            link,
            {"values": POLICY},
            tombstone_ttl=POLICY.hard_timeout + L2_TIMEOUT + 1,
            lease_margin=L2_TIMEOUT,
            strict=False,
            metrics=NullMetrics(),
        )
        self.cache = self.manager.cache("values", str)
        self.revoked = self.manager.expiring_set("revoked")
        self.spawn(self.manager.__aenter__())

    @property
    def link(self) -> RedisLink:
        return self.manager.link

    @property
    def recovery(self) -> RecoveryQueue:
        return self.link.recovery

    @property
    def backplane(self) -> Backplane:
        return self.manager.backplane

    @property
    def is_well(self) -> bool:
        """Whether it is connected, uses Redis, and has nothing to replay."""
        return (
            self.backplane.live
            and not self.link.breaker.open
            and self.link.writes.refusal is None
            and not len(self.recovery)
            and not self.recovery.distrusts_all
        )

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a task."""
        return self.loop.create_task(work)

    def end(self) -> None:
        """Kill the process, without any cleanup."""
        self.ended = True
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_forever()
        self.loop.create_task(self.link._connections._client.connection_pool.disconnect())
        self.loop.run_forever()
        self.loop.close()


class World:
    """Everything that happens, one step after the other."""

    def __init__(self) -> None:
        _CLOCK.seconds = 1000.0
        self.server = RedisModel(_now)
        self.network = Network(self.server)
        self.processes: list[Process] = []

    @property
    def now(self) -> float:
        return _CLOCK.seconds

    def start(self, number: int, database: int = 0) -> Process:
        """Start a process."""
        process = Process(self.network, number, database)
        self.processes.append(process)
        return process

    def end(self, process: Process) -> None:
        """Kill a process."""
        self.processes.remove(process)
        process.end()
        for wire in self.network.wires_of(process):
            wire.abandon()

    def settle(self) -> None:
        """Run everything that does not need time to pass."""
        for _ in range(_CALMS_WITHIN):
            for process in self.processes:
                if process.running:
                    process.loop.run_due()
            if not self.network.deliver():
                return
        raise RuntimeError("it never calms down")

    def wait(self, seconds: float) -> None:
        """Advance the clock, and run what becomes due meanwhile, in order."""
        ends = self.now + seconds
        while True:
            self.settle()
            due = min((process.loop.wakes_at for process in self.processes if process.running), default=ends)
            if due > ends or self.now > ends:
                break
            # A timer that is due but does not run yet is due by less than the resolution of the loop's clock.
            _CLOCK.seconds = due if due > self.now else self.now + _TICK
        _CLOCK.seconds = max(ends, self.now)
        self.settle()

    def restart_server(self, data: Snapshot) -> None:
        """Restart the server with other data."""
        self.server.restart(data)
        self.network.reset(list(self.network.wires))

    def close(self) -> None:
        """Kill all processes."""
        for process in list(self.processes):
            with suppress(RuntimeError):
                self.end(process)

"""Single flight: one load for all who wait; the load is a task of its own, which no caller owns."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from tequipy_caching.domain.exceptions import CacheError, RecursiveLoad, WrongEventLoop
from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.metrics import Tally

V = TypeVar("V")


class InFlightLoad(Generic[V]):
    """A load under way, of one key or of several, and how many wait for it."""

    __slots__ = ("abandoned", "detached", "keys", "owner", "seen", "stale_values", "task", "waiting")

    def __init__(self, owner: "InFlightLoads[V]", keys: Sequence[Key]) -> None:
        self.owner = owner
        self.keys = keys
        self.task: asyncio.Task[Mapping[Key, V]]
        self.seen: dict[Key, object] = {}
        """The states in which the load has found its keys, as the shared tier knows them."""
        self.waiting = 0
        self.abandoned = False
        self.detached = False
        """Whether it goes on though nobody waits."""
        self.stale_values: Callable[[], Mapping[Key, V] | None] = lambda: None
        """Older values of all its keys, for callers whose patience ends before the load; None: there are none."""


Load = Callable[[InFlightLoad[V]], Awaitable[Mapping[Key, V]]]
"""Loads the flight's keys; a key that has no value is left out."""

_enclosing_loads: ContextVar[tuple[InFlightLoad[Any], ...]] = ContextVar("tequipy_caching_flights", default=())
"""The loads that the running code is part of."""


class InFlightLoads(Generic[V]):
    """The loads of one cache that are under way in this process; `coalesced` counts who did not have to load."""

    def __init__(self, cache: str, coalesced: Tally) -> None:
        self._cache = cache
        self._coalesced = coalesced
        self._current: dict[Key, InFlightLoad[V]] = {}
        self._tasks: set[asyncio.Task[Mapping[Key, V]]] = set()

    async def join(self, keys: Sequence[Key], load: Load[V], soft_timeout: float | None = None) -> dict[Key, V]:
        """Return what one load of each key gives to all who ask for it meanwhile; an exception reaches them all too.

        A caller that is cancelled disturbs nobody; the last one that leaves cancels the load. A caller whose patience
        (seconds) ends gets the flight's stand-ins, if it has them, and the load goes on. Raises `RecursiveLoad` for a
        load that asks for a key of its own.
        """
        joined = self._join(keys, load)
        found: dict[Key, V] = {}
        try:
            for in_flight in joined:
                found.update(await self._wait(in_flight, soft_timeout))
        finally:
            for in_flight in joined:
                self._leave(in_flight)
        return found

    def start_in_background(self, key: Key, load: Load[V]) -> None:
        """Begin a load that nobody waits for, unless one is under way."""
        if key not in self._current:
            self._start([key], load).detached = True

    def get(self, key: Key) -> InFlightLoad[V] | None:
        """Return the load of a key that is under way."""
        return self._current.get(key)

    def forget(self, key: Key) -> None:
        """Let a load go on for those who wait for it, and have later callers start another."""
        self._current.pop(key, None)

    def forget_all(self) -> None:
        """Have all later callers start loads of their own."""
        self._current.clear()

    async def cancel_all(self) -> None:
        """Cancel all loads, and return when they have ended."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _join(self, keys: Sequence[Key], load: Load[V]) -> list[InFlightLoad[V]]:
        enclosing = [
            in_flight for in_flight in _enclosing_loads.get() if in_flight.owner is self and not in_flight.task.done()
        ]
        if any(key in in_flight.keys for in_flight in enclosing for key in keys):
            raise RecursiveLoad(f"a load of the cache {self._cache!r} asks for the key that it is loading")
        mine = [key for key in keys if key not in self._current]
        self._coalesced.count += len(keys) - len(mine)
        joined = list(dict.fromkeys(filter(None, map(self._current.get, keys))))
        if mine:
            joined.append(self._start(mine, load))
        loop = asyncio.get_running_loop()
        for in_flight in joined:
            if in_flight.task.get_loop() is not loop:
                raise WrongEventLoop(
                    f"a load of the cache {self._cache!r} runs in another event loop: build and enter a manager in each"
                )
        for in_flight in joined:
            in_flight.waiting += 1
        return joined

    def _start(self, keys: Sequence[Key], load: Load[V]) -> InFlightLoad[V]:
        in_flight = InFlightLoad(self, keys)
        for key in keys:
            self._current[key] = in_flight
        in_flight.task = asyncio.create_task(self._run(in_flight, load), name=f"cache-load-{self._cache}")
        self._tasks.add(in_flight.task)
        in_flight.task.add_done_callback(self._on_done)
        return in_flight

    async def _wait(self, in_flight: InFlightLoad[V], soft_timeout: float | None) -> Mapping[Key, V]:
        if soft_timeout is not None and not in_flight.task.done():
            await asyncio.wait({in_flight.task}, timeout=soft_timeout)
            if not in_flight.task.done() and (stale_values := in_flight.stale_values()) is not None:
                in_flight.detached = True
                return stale_values
        # The shield keeps a caller's cancellation from the load. It also raises the exception, for every caller, with
        # the traceback that the load gave it: what one caller adds, another does not see.
        return await asyncio.shield(in_flight.task)

    def _leave(self, in_flight: InFlightLoad[V]) -> None:
        in_flight.waiting -= 1
        if not in_flight.waiting and not in_flight.detached and not in_flight.task.done():
            in_flight.abandoned = True
            self._finish(in_flight)
            in_flight.task.cancel()

    async def _run(self, in_flight: InFlightLoad[V], load: Load[V]) -> Mapping[Key, V]:
        _enclosing_loads.set((*_enclosing_loads.get(), in_flight))
        try:
            return await load(in_flight)
        except asyncio.CancelledError as error:
            if in_flight.abandoned or in_flight.task.cancelling():
                raise
            # Passed on as it is, it would look to every caller as if it had been cancelled itself.
            raise CacheError(f"a load of the cache {self._cache!r} was cancelled from within") from error
        finally:
            self._finish(in_flight)

    def _on_done(self, task: "asyncio.Task[Mapping[Key, V]]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: a load that nobody waits for may fail

    def _finish(self, in_flight: InFlightLoad[V]) -> None:
        for key in in_flight.keys:
            if self._current.get(key) is in_flight:
                del self._current[key]

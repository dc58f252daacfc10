"""Single flight: one load for all who wait; the load is a task of its own, which no caller owns."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from tequipy_caching.domain.exceptions import CacheError, RecursiveLoad, WrongEventLoop
from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.metrics import Tally

V = TypeVar("V")


class Flight(Generic[V]):
    """A load under way, of one key or of several, and how many wait for it."""

    __slots__ = ("abandoned", "detached", "keys", "owner", "seen", "stand_ins", "task", "waiting")

    def __init__(self, owner: "Flights[V]", keys: Sequence[Key]) -> None:
        self.owner = owner
        self.keys = keys
        self.task: asyncio.Task[Mapping[Key, V]]
        self.seen: dict[Key, object] = {}
        """The states in which the load has found its keys, as the shared tier knows them."""
        self.waiting = 0
        self.abandoned = False
        self.detached = False
        """Whether it goes on though nobody waits."""
        self.stand_ins: Callable[[], Mapping[Key, V] | None] = lambda: None
        """Older values of all its keys, for callers whose patience ends before the load; None: there are none."""


Load = Callable[[Flight[V]], Awaitable[Mapping[Key, V]]]
"""Loads the flight's keys; a key that has no value is left out."""

_above: ContextVar[tuple[Flight[Any], ...]] = ContextVar("tequipy_caching_flights", default=())
"""The loads that the running code is part of."""


class Flights(Generic[V]):
    """The loads of one cache that are under way in this process; `coalesced` counts who did not have to load."""

    def __init__(self, cache: str, coalesced: Tally) -> None:
        self._cache = cache
        self._coalesced = coalesced
        self._current: dict[Key, Flight[V]] = {}
        self._tasks: set[asyncio.Task[Mapping[Key, V]]] = set()

    async def join(self, keys: Sequence[Key], load: Load[V], patience: float | None = None) -> dict[Key, V]:
        """Return what one load of each key gives to all who ask for it meanwhile; an exception reaches them all too.

        A caller that is cancelled disturbs nobody; the last one that leaves cancels the load. A caller whose patience
        (seconds) ends gets the flight's stand-ins, if it has them, and the load goes on. Raises `RecursiveLoad` for a
        load that asks for a key of its own.
        """
        flights = self._board(keys, load)
        found: dict[Key, V] = {}
        try:
            for flight in flights:
                found.update(await self._arrival(flight, patience))
        finally:
            for flight in flights:
                self._leave(flight)
        return found

    def launch(self, key: Key, load: Load[V]) -> None:
        """Begin a load that nobody waits for, unless one is under way."""
        if key not in self._current:
            self._depart([key], load).detached = True

    def of(self, key: Key) -> Flight[V] | None:
        """Return the load of a key that is under way."""
        return self._current.get(key)

    def forget(self, key: Key) -> None:
        """Let a load go on for those who wait for it, and have later callers start another."""
        self._current.pop(key, None)

    def forget_all(self) -> None:
        """Have all later callers start loads of their own."""
        self._current.clear()

    async def end(self) -> None:
        """Cancel all loads, and return when they have ended."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _board(self, keys: Sequence[Key], load: Load[V]) -> list[Flight[V]]:
        above = [flight for flight in _above.get() if flight.owner is self and not flight.task.done()]
        if any(key in flight.keys for flight in above for key in keys):
            raise RecursiveLoad(f"a load of the cache {self._cache!r} asks for the key that it is loading")
        mine = [key for key in keys if key not in self._current]
        self._coalesced.count += len(keys) - len(mine)
        flights = list(dict.fromkeys(filter(None, map(self._current.get, keys))))
        if mine:
            flights.append(self._depart(mine, load))
        loop = asyncio.get_running_loop()
        for flight in flights:
            if flight.task.get_loop() is not loop:
                raise WrongEventLoop(
                    f"a load of the cache {self._cache!r} runs in another event loop: build and enter a manager in each"
                )
        for flight in flights:
            flight.waiting += 1
        return flights

    def _depart(self, keys: Sequence[Key], load: Load[V]) -> Flight[V]:
        flight = Flight(self, keys)
        for key in keys:
            self._current[key] = flight
        flight.task = asyncio.create_task(self._fly(flight, load), name=f"cache-load-{self._cache}")
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._over)
        return flight

    async def _arrival(self, flight: Flight[V], patience: float | None) -> Mapping[Key, V]:
        if patience is not None and not flight.task.done():
            await asyncio.wait({flight.task}, timeout=patience)
            if not flight.task.done() and (stand_ins := flight.stand_ins()) is not None:
                flight.detached = True
                return stand_ins
        # The shield keeps a caller's cancellation from the load. It also raises the exception, for every caller, with
        # the traceback that the load gave it: what one caller adds, another does not see.
        return await asyncio.shield(flight.task)

    def _leave(self, flight: Flight[V]) -> None:
        flight.waiting -= 1
        if not flight.waiting and not flight.detached and not flight.task.done():
            flight.abandoned = True
            self._land(flight)
            flight.task.cancel()

    async def _fly(self, flight: Flight[V], load: Load[V]) -> Mapping[Key, V]:
        _above.set((*_above.get(), flight))
        try:
            return await load(flight)
        except asyncio.CancelledError as error:
            if flight.abandoned or flight.task.cancelling():
                raise
            # Passed on as it is, it would look to every caller as if it had been cancelled itself.
            raise CacheError(f"a load of the cache {self._cache!r} was cancelled from within") from error
        finally:
            self._land(flight)

    def _over(self, task: "asyncio.Task[Mapping[Key, V]]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: a load that nobody waits for may fail

    def _land(self, flight: Flight[V]) -> None:
        for key in flight.keys:
            if self._current.get(key) is flight:
                del self._current[key]

"""Single flight: one load for all who wait; the load is a task of its own, which no caller owns."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from tequipy_caching.domain.exceptions import CacheError, LoadTimeout, RecursiveLoad
from tequipy_caching.domain.metrics import Tally

V = TypeVar("V")


class _Flight(Generic[V]):
    """A load under way and how many wait for it."""

    __slots__ = ("abandoned", "name", "owner", "task", "waiting")

    def __init__(self, owner: "Flights[V]", name: str) -> None:
        self.owner = owner
        self.name = name
        self.task: asyncio.Task[V]
        self.waiting = 0
        self.abandoned = False


_above: ContextVar[tuple[_Flight[Any], ...]] = ContextVar("tequipy_caching_flights", default=())
"""The loads that the running code is part of."""


class Flights(Generic[V]):
    """The loads of one cache that are under way in this process; `coalesced` counts who did not have to load."""

    def __init__(self, cache: str, hard_timeout: float, coalesced: Tally) -> None:
        self._cache = cache
        self._hard_timeout = hard_timeout
        self._coalesced = coalesced
        self._current: dict[str, _Flight[V]] = {}

    async def join(self, name: str, load: Callable[[], Awaitable[V]]) -> V:
        """Return what one load gives to all who ask for the name meanwhile; an exception reaches all of them too.

        A caller that is cancelled disturbs nobody; the last one that leaves cancels the load. Raises `RecursiveLoad`
        for a load that asks for its own name, and `LoadTimeout`.
        """
        for outer in _above.get():
            if outer.name == name and outer.owner is self and not outer.task.done():
                raise RecursiveLoad(f"a load of the cache {self._cache!r} asks for the key that it is loading")
        flight = self._current.get(name)
        if flight is None:
            flight = self._current[name] = _Flight(self, name)
            flight.task = asyncio.create_task(self._fly(flight, load), name=f"cache-load-{self._cache}")
        else:
            self._coalesced.count += 1
        flight.waiting += 1
        try:
            # The shield keeps a caller's cancellation from the load. It also raises the exception, for every caller,
            # with the traceback that the load gave it: what one caller adds, another does not see.
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.abandoned = True
                self._land(flight)
                flight.task.cancel()

    def forget(self, name: str) -> None:
        """Let a load go on for those who wait for it, and have later callers start another."""
        self._current.pop(name, None)

    def forget_all(self) -> None:
        """Have all later callers start loads of their own."""
        self._current.clear()

    async def _fly(self, flight: _Flight[V], load: Callable[[], Awaitable[V]]) -> V:
        _above.set((*_above.get(), flight))
        limit = asyncio.timeout(self._hard_timeout)
        try:
            async with limit:
                return await load()
        except TimeoutError as error:
            if limit.expired():
                raise LoadTimeout(f"a load of the cache {self._cache!r} took over {self._hard_timeout:g} s") from error
            raise
        except asyncio.CancelledError as error:
            if flight.abandoned or flight.task.cancelling():
                raise
            # Passed on as it is, it would look to every caller as if it had been cancelled itself.
            raise CacheError(f"a load of the cache {self._cache!r} was cancelled from within") from error
        finally:
            self._land(flight)

    def _land(self, flight: _Flight[V]) -> None:
        if self._current.get(flight.name) is flight:
            del self._current[flight.name]

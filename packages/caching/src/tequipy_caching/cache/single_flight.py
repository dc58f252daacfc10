"""Single flight: concurrent callers of a key share one load, which runs in a task of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from tequipy_caching._exceptions import CacheError, RecursiveLoad, WrongEventLoop
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.metrics import Tally

V = TypeVar("V")


class InFlightLoad(Generic[V]):
    """A load of one key or several that has not finished; `waiting` counts the callers that wait for it."""

    __slots__ = (
        *("abandoned", "began", "detached", "keys", "looked_up"),
        *("owner", "seen", "stale_values", "task", "waiting"),
    )

    def __init__(self, owner: "InFlightLoads[V]", keys: Sequence[Key]) -> None:
        self.owner = owner
        self.keys = keys
        self.task: asyncio.Task[Mapping[Key, V]]
        self.began = False
        """Whether it may have sent its first lookup, so that it may return values from before this moment."""
        self.looked_up = asyncio.Event()
        """Set when the first lookup has ended."""
        self.seen: dict[Key, object] = {}
        """The states in the shared tier that the last lookup of each key saw; without keys that it found, and without
        keys whose state is unknown."""
        self.waiting = 0
        self.abandoned = False
        """Whether it was cancelled because its last caller left."""
        self.detached = False
        """Whether it continues when no caller waits for it."""
        self.stale_values: Callable[[], Mapping[Key, V] | None] = lambda: None
        """Returns the stale values of all its keys, or None; called when the soft timeout of a caller ends first."""


Load = Callable[[InFlightLoad[V]], Awaitable[Mapping[Key, V]]]
"""Loads the keys of an in-flight load; its result omits keys that have no value."""

_enclosing_loads: ContextVar[tuple[InFlightLoad[Any], ...]] = ContextVar("tequipy_caching_loads", default=())
"""The loads in whose factories the running code is, the outermost first."""


class InFlightLoads(Generic[V]):
    """The in-flight loads of one cache in this process; `coalesced` counts the callers that joined one."""

    def __init__(self, cache: str, coalesced: Tally) -> None:
        self._cache = cache
        self._coalesced = coalesced
        self._current: dict[Key, InFlightLoad[V]] = {}
        """The loads that further callers join."""
        self._tasks: set[asyncio.Task[Mapping[Key, V]]] = set()
        """The tasks of all loads, also of those that nobody can join any more."""

    async def join(self, keys: Sequence[Key], load: Load[V], soft_timeout: float | None = None) -> dict[Key, V]:
        """Return the values of keys: join the in-flight load of each, or start one with `load` for the others.

        All callers that joined a load get its values or its exception. A cancelled caller does not affect the others;
        when the last caller leaves, the load is cancelled. After `soft_timeout` seconds a caller gets the load's stale
        values, if there are any, and the load continues. Raises `RecursiveLoad` if a load asks for one of its own keys.
        """
        joined = self._join(keys, load)
        loads = dict.fromkeys(joined.values())
        try:
            values = {in_flight: await self._wait(in_flight, soft_timeout) for in_flight in loads}
        finally:
            for in_flight in loads:
                self._leave(in_flight)
        # A load may also have an older value of a key that was invalidated meanwhile, and for which another was joined.
        return {key: values[in_flight][key] for key, in_flight in joined.items() if key in values[in_flight]}

    def start_in_background(self, key: Key, load: Load[V]) -> None:
        """Start a load without a waiting caller, unless the key has an in-flight load."""
        if key not in self._current:
            self._start([key], load).detached = True

    async def looked_up(self, keys: Sequence[Key]) -> Mapping[Key, InFlightLoad[V]]:
        """Return the in-flight loads of keys, except those that have not begun, when their first lookups have ended."""
        loads = {key: load for key in keys if (load := self._current.get(key)) is not None and load.began}
        self._check_event_loop(loads.values())
        for load in loads.values():
            await load.looked_up.wait()
        return loads

    def get(self, key: Key) -> InFlightLoad[V] | None:
        """Return the in-flight load of a key."""
        return self._current.get(key)

    def forget(self, key: Key) -> None:
        """Make later callers of a key start a new load; callers that wait for the current one still get its value."""
        self._current.pop(key, None)

    def forget_all(self) -> None:
        """Make later callers of every key start new loads."""
        self._current.clear()

    async def cancel_all(self) -> None:
        """Cancel all loads and wait until they have ended."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _join(self, keys: Sequence[Key], load: Load[V]) -> dict[Key, InFlightLoad[V]]:
        """Count the caller as waiting for the in-flight load of each key; one is started for the keys without any."""
        enclosing = [
            in_flight for in_flight in _enclosing_loads.get() if in_flight.owner is self and not in_flight.task.done()
        ]
        if any(key in in_flight.keys for in_flight in enclosing for key in keys):
            raise RecursiveLoad(f"a load of the cache {self._cache!r} asks for the key that it is loading")
        without_load = [key for key in keys if key not in self._current]
        self._coalesced.count += len(keys) - len(without_load)
        if without_load:
            self._start(without_load, load)
        joined = {key: self._current[key] for key in keys}
        loads = dict.fromkeys(joined.values())
        self._check_event_loop(loads)
        for in_flight in loads:
            in_flight.waiting += 1
        return joined

    def _check_event_loop(self, loads: Iterable[InFlightLoad[V]]) -> None:
        loop = asyncio.get_running_loop()
        if any(in_flight.task.get_loop() is not loop for in_flight in loads):
            raise WrongEventLoop(
                f"a load of the cache {self._cache!r} runs in another event loop: build and enter a manager in each"
            )

    def _start(self, keys: Sequence[Key], load: Load[V]) -> InFlightLoad[V]:
        in_flight = InFlightLoad(self, keys)
        for key in keys:
            self._current[key] = in_flight
        in_flight.task = asyncio.create_task(self._run(in_flight, load), name=f"cache-load-{self._cache}")
        self._tasks.add(in_flight.task)
        in_flight.task.add_done_callback(self._on_done)
        return in_flight

    async def _wait(self, in_flight: InFlightLoad[V], soft_timeout: float | None) -> Mapping[Key, V]:
        """Return the values of a load, or its stale values after the soft timeout."""
        if soft_timeout is not None and not in_flight.task.done():
            await asyncio.wait({in_flight.task}, timeout=soft_timeout)
            if not in_flight.task.done() and (stale_values := in_flight.stale_values()) is not None:
                in_flight.detached = True
                return stale_values
        # The shield keeps a caller's cancellation away from the load. It also raises the load's exception anew for each
        # caller, so that the traceback does not grow with the number of callers.
        return await asyncio.shield(in_flight.task)

    def _leave(self, in_flight: InFlightLoad[V]) -> None:
        """Count the caller as gone, and cancel the load if it was the last one."""
        in_flight.waiting -= 1
        if not in_flight.waiting and not in_flight.detached and not in_flight.task.done():
            in_flight.abandoned = True
            self._remove(in_flight)
            in_flight.task.cancel()

    async def _run(self, in_flight: InFlightLoad[V], load: Load[V]) -> Mapping[Key, V]:
        _enclosing_loads.set((*_enclosing_loads.get(), in_flight))
        in_flight.began = True
        try:
            return await load(in_flight)
        except asyncio.CancelledError as error:
            if in_flight.abandoned or in_flight.task.cancelling():
                raise
            # If it were raised unchanged, each caller would conclude that it had been cancelled itself.
            raise CacheError(f"a load of the cache {self._cache!r} was cancelled from within") from error
        finally:
            in_flight.looked_up.set()  # also if it failed or was cancelled before
            self._remove(in_flight)

    def _on_done(self, task: "asyncio.Task[Mapping[Key, V]]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, because asyncio logs exceptions that nobody has retrieved

    def _remove(self, in_flight: InFlightLoad[V]) -> None:
        """Make later callers start a new load, unless an invalidation has already caused that."""
        for key in in_flight.keys:
            if self._current.get(key) is in_flight:
                del self._current[key]

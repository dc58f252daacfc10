"""Calls of factories, each for a bounded time, even if a factory does not end when it is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Generic, TypeVar

from tequipy_caching._exceptions import LoadTimeout
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.metrics import CacheMetrics

V = TypeVar("V")

Factory = Callable[[Sequence[Key]], Awaitable[Mapping[Key, V]]]
"""Returns the values of keys; its result may omit keys."""


class FactoryCalls(Generic[V]):
    """Calls the factories of one cache, with its `hard_timeout` in seconds, and measures them."""

    def __init__(self, cache: str, hard_timeout: float, metrics: CacheMetrics) -> None:
        self._cache = cache
        self._hard_timeout = hard_timeout
        self._loads = {
            outcome: metrics.tally("cache_loads", cache, outcome) for outcome in ("ok", "error", "timeout", "cancelled")
        }
        self._load_seconds = metrics.seconds("cache_load_seconds", cache)
        self._cancelled: set[asyncio.Future[Mapping[Key, V]]] = set()
        """Cancelled factories that have not ended yet. The event loop itself holds only weak references to them."""

    async def call(self, factory: Factory[V], keys: Sequence[Key]) -> Mapping[Key, V]:
        """Return the result of a factory, or raise its exception; raise `LoadTimeout` if it takes too long."""
        outcome, started = "error", monotonic()
        running = asyncio.ensure_future(factory(keys))
        try:
            # `asyncio.timeout` would wait until a cancelled factory has ended, and a driver may take long for that.
            if not (await asyncio.wait({running}, timeout=self._hard_timeout))[0]:
                outcome = "timeout"
                raise LoadTimeout(f"a load of the cache {self._cache!r} took over {self._hard_timeout:g} s")
            values = running.result()
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            running.cancel()
            await asyncio.wait({running}, timeout=self._hard_timeout)  # only `InFlightLoads.cancel_all` waits for this
            raise
        finally:
            if not running.done():
                self._cancel_in_background(running)
            self._loads[outcome].count += 1
            self._load_seconds(monotonic() - started)
        return values

    def _cancel_in_background(self, running: "asyncio.Future[Mapping[Key, V]]") -> None:
        """Cancel a factory without waiting for its end, and ignore its result."""
        running.cancel()
        self._cancelled.add(running)
        running.add_done_callback(self._on_end)

    def _on_end(self, ended: "asyncio.Future[Mapping[Key, V]]") -> None:
        self._cancelled.discard(ended)
        if not ended.cancelled():
            ended.exception()  # retrieved, because asyncio logs exceptions that nobody has retrieved

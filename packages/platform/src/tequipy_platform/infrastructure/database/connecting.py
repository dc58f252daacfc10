"""Connecting to PostgreSQL in such a way that a caller may leave at any moment."""

import asyncio
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types


class Connector:
    """Connects as `asyncpg.connect` does; who is cancelled meanwhile leaves at once, and nothing is left open.

    A connection that nobody waits for any longer is made to its end and closed then: to break it off makes asyncpg
    leave an error behind that is logged as one that nobody heard (its issues 1211 and 1310).
    """

    def __init__(self) -> None:
        self._abandoned: set[asyncio.Future[asyncpg.Connection]] = set()

    async def __call__(self, *arguments: Any, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 -- asyncpg's own
        """Return a connection; raises whatever asyncpg raises."""
        connecting = asyncio.ensure_future(asyncpg.connect(*arguments, **options))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            self._abandoned.add(connecting)
            connecting.add_done_callback(self._close)
            raise

    async def settle(self, seconds: float) -> None:
        """Wait for what nobody waits for any longer, so long at most."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=seconds)

    def _close(self, connecting: "asyncio.Future[asyncpg.Connection]") -> None:
        self._abandoned.discard(connecting)
        if not connecting.cancelled() and connecting.exception() is None:
            connecting.result().terminate()

"""NOTIFY after a commit, in a transaction of its own."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types

_SEND_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 1.0
"""The pause after a failure; the requests of this time are sent together after it."""
_CLOSE_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Notifier:
    """Sends notifications in the background, one statement at a time; what cannot be sent is dropped.

    NOTIFY takes a lock on the whole server, which is held until its transaction has ended. In a business transaction it
    lets one commit at a time pass, each with its flush and the answer of a synchronous standby. Here its transaction
    waits for neither. It runs on a connection of its own, which is opened at first use: one from the pool would be
    missing there, and would not be available when the pool is exhausted.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: asyncpg.Connection | None = None
        self._sending: asyncio.Task[None] | None = None
        self._requested: set[tuple[str, str]] = set()

    def notify(self, channel: str, payload: str) -> None:
        """Request a notification; requests that arrive while one is being sent are sent together after it."""
        loop = asyncio.get_running_loop()
        if (
            loop is not self._loop
        ):  # the connection of a loop that has ended, perhaps in the parent process, is unusable
            self._loop, self._connection, self._sending = loop, None, None
            self._requested.clear()
        self._requested.add((channel, payload))
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._send(), name="database-notifications")

    async def close(self) -> None:
        """Send the last requests if that takes at most a second, and close the connection."""
        if self._loop is not asyncio.get_running_loop():
            return
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=_CLOSE_SECONDS)
            self._sending.cancel()
            await asyncio.wait({self._sending}, timeout=_CLOSE_SECONDS)
        if self._connection is not None:
            with suppress(Exception):  # the server may be away
                await self._connection.close(timeout=_CLOSE_SECONDS)
            self._drop_connection()

    async def _send(self) -> None:
        while self._requested:
            requested, self._requested = self._requested, set()
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                await self._connection.execute(_statement(requested), timeout=_SEND_SECONDS)
            except Exception as error:  # noqa: BLE001 -- receivers poll too, so no error may have an effect elsewhere
                logger.debug("notification_failed", extra={"error": repr(error)})
                self._drop_connection()
                await asyncio.sleep(_PAUSE_SECONDS)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _statement(notifications: Iterable[tuple[str, str]]) -> str:
    """Return one statement, which is a transaction of its own and does not wait for its flush.

    It has no parameters, because behind a pooler a statement with parameters could be prepared on one server connection
    and executed on another.
    """
    calls = ", ".join(f"pg_notify({_literal(channel)}, {_literal(payload)})" for channel, payload in notifications)
    return f"select set_config('synchronous_commit', 'off', true), {calls}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

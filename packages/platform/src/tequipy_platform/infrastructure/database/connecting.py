"""Connecting to PostgreSQL in such a way that a caller may leave at any moment."""

import asyncio
from collections.abc import Sequence
from functools import cache, partial
from ssl import SSLContext
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types

from tequipy_platform.infrastructure.database.settings import DatabaseSettings
from tequipy_platform.infrastructure.database.tls import tls_attempts

SESSION: Final = {"default_transaction_isolation": "read committed", "TimeZone": "UTC"}
"""What a session sets for itself, whatever the defaults of the server, the database and the role are."""


class Connector:
    """Connects as `asyncpg.connect` does, with TLS by the settings.

    A caller that is cancelled meanwhile leaves at once, and nothing is left open.

    A connection that nobody waits for any longer is made to its end and closed then: to break it off makes asyncpg
    leave an error behind that is logged as one that nobody heard (its issues 1211 and 1310).
    """

    def __init__(self, settings: DatabaseSettings | None = None) -> None:
        # Files are read once: a renewed certificate is used by the next process.
        self._tls = cache(
            partial(
                tls_attempts,
                root_cert=settings.ssl_root_cert if settings else None,
                cert=settings.ssl_cert if settings else None,
                key=settings.ssl_key if settings else None,
            )
        )
        self._abandoned: set[asyncio.Future[asyncpg.Connection]] = set()

    async def __call__(self, *arguments: Any, ssl: str = "prefer", **options: Any) -> asyncpg.Connection:  # noqa: ANN401 -- asyncpg's own
        """Return a connection; `ssl` is a mode of libpq's. Raises whatever asyncpg raises."""
        # No password is an empty one: asyncpg would look for another one in the environment and in `~/.pgpass`.
        options.setdefault("password", "" if not arguments else None)
        connecting = asyncio.ensure_future(_connect(self._tls(ssl), *arguments, **options))
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


async def _connect(attempts: Sequence[SSLContext | bool], *arguments: Any, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 -- asyncpg's own
    for attempt in attempts[:-1]:
        try:
            return await asyncpg.connect(*arguments, ssl=attempt, **options)
        except asyncpg.InvalidAuthorizationSpecificationError:
            continue  # pg_hba.conf may want it the other way
        except ConnectionError as error:
            if type(error) is not ConnectionError:  # the server speaks no TLS; others are of the network
                raise
    return await asyncpg.connect(*arguments, ssl=attempts[-1], **options)

"""Connecting to PostgreSQL without leaving connections behind when the caller is cancelled."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache, partial
from ssl import SSLContext
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types

from tequipy_platform.database.settings import DatabaseSettings
from tequipy_platform.database.tls import tls_attempts

SESSION: Final = {"default_transaction_isolation": "read committed", "TimeZone": "UTC"}
"""Session settings that do not depend on the defaults of the server, the database or the role."""

_OF_BEGIN: Final = {"default_transaction_isolation"}
"""Settings that BEGIN itself states, because they come too late in a transaction."""


class Connector:
    """Connects as `asyncpg.connect` does, with TLS by the settings.

    A cancelled caller returns at once. The connection attempt then continues in the background, and its connection is
    closed when it is established: cancelling the attempt would make asyncpg leave an exception that is logged as never
    retrieved (asyncpg issues 1211 and 1310).
    """

    def __init__(self, settings: DatabaseSettings | None = None) -> None:
        # The files are read once per process: a renewed certificate takes effect at the next start.
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
        """Return a connection; `ssl` is one of libpq's modes. Raises what asyncpg raises."""
        # An absent password becomes an empty one: asyncpg would search the environment and `~/.pgpass` otherwise.
        options.setdefault("password", "" if not arguments else None)
        connecting = asyncio.ensure_future(_connect(self._tls(ssl), *arguments, **options))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            self._abandoned.add(connecting)
            connecting.add_done_callback(self._close)
            raise

    async def settle(self, seconds: float) -> None:
        """Wait up to `seconds` for the connection attempts whose callers were cancelled."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=seconds)

    def _close(self, connecting: "asyncio.Future[asyncpg.Connection]") -> None:
        self._abandoned.discard(connecting)
        if not connecting.cancelled() and connecting.exception() is None:
            connecting.result().terminate()


def milliseconds(seconds: float) -> str:
    """Return a time as PostgreSQL's settings have it."""
    return str(round(seconds * 1000))


def pooled_connection(settings: Mapping[str, str]) -> type[asyncpg.Connection]:
    """Return the class of connections to a pooler, which begin each transaction with these session settings.

    A pooler drops those of the connection start. They are sent together with BEGIN, so that they cost no round trip,
    and so that there is no transaction without them, on any connection.
    """
    set_up = "".join(f"SET LOCAL {name} = '{value}';" for name, value in settings.items() if name not in _OF_BEGIN)

    class PooledConnection(asyncpg.Connection):  # type: ignore[misc]  # -- asyncpg ships no types
        async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ANN401, ASYNC109 -- asyncpg's own
            if query.startswith("BEGIN"):  # asyncpg's transactions, which SQLAlchemy uses too
                query += set_up
            return str(await super().execute(query, *args, timeout=timeout))

    return PooledConnection


async def _connect(attempts: Sequence[SSLContext | bool], *arguments: Any, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 -- asyncpg's own
    for attempt in attempts[:-1]:
        try:
            return await asyncpg.connect(*arguments, ssl=attempt, **options)
        except asyncpg.InvalidAuthorizationSpecificationError:
            continue  # pg_hba.conf may require the other mode
        except ConnectionError as error:  # of exactly this type when the server has no TLS
            if type(error) is not ConnectionError:  # subclasses are network errors
                raise
    return await asyncpg.connect(*arguments, ssl=attempts[-1], **options)

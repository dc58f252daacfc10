"""PostgreSQL through SQLAlchemy and asyncpg: the engine, its pool, and connections outside the pool."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4
from weakref import WeakSet

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
from prometheus_client import CollectorRegistry
from sqlalchemy import URL, AdaptedConnection, Pool, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from tequipy_observability import tracing_enabled
from tequipy_platform.database.connecting import SESSION, Connector, milliseconds, pooled_connection
from tequipy_platform.database.encoding import check_encoding
from tequipy_platform.database.metrics import PoolCollector
from tequipy_platform.database.notifications import Notifier
from tequipy_platform.database.settings import DatabaseSettings
from tequipy_platform.database.statement_spans import trace_statements

SETTLE_SECONDS: Final = 5.0
"""How long shutdown and cancellation wait for the server: for a commit that runs, for a pool that closes."""
_PING_SECONDS: Final = 2.0
_FRESH_SECONDS: Final = 0.1
"""A connection that was in use this short time ago is not tested; under load that saves a round trip of each
transaction."""
_USED_AT: Final = "tequipy_used_at"


class Database:
    """One engine with its pool, built at first use: a `Database` may be created before event loop and fork."""

    def __init__(
        self, settings: DatabaseSettings, *, registry: CollectorRegistry | None = None, app_version: str | None = None
    ) -> None:
        self._settings = settings
        self.app_version = app_version
        self._url = make_url(settings.url.get_secret_value())
        self._direct_url = make_url(settings.direct_url.get_secret_value()) if settings.direct_url else self._url
        self._opened: WeakSet[asyncpg.Connection] = WeakSet()
        self._connector = Connector(settings)
        self._session = SESSION | {
            "statement_timeout": milliseconds(settings.statement_timeout),
            "idle_in_transaction_session_timeout": milliseconds(settings.idle_in_transaction_timeout),
        }
        self._pooled_connection = pooled_connection(self._session)
        self._notifier = Notifier(partial(self._connect, self._url, pooled=settings.pgbouncer))
        if registry is not None:
            registry.register(PoolCollector(self._pool, limit=settings.pool_size + settings.max_overflow))

    @property
    def schemas(self) -> Mapping[str, str]:
        """Schema names of this installation by the names in the models, where they differ."""
        return self._settings.schemas

    @cached_property
    def engine(self) -> AsyncEngine:
        """The pooled engine; its statements use this installation's schema names."""
        settings = self._settings
        engine = create_async_engine(
            self._url,
            pool_size=settings.pool_size,
            max_overflow=settings.max_overflow,
            pool_timeout=settings.pool_timeout,
            pool_recycle=settings.pool_recycle,
            hide_parameters=True,
            isolation_level="READ COMMITTED",  # sent with each BEGIN, whatever the server's default is
            # Only if a schema is renamed, because the translation searches every statement for names.
            execution_options={"schema_translate_map": dict(self.schemas)} if self.schemas else {},
            connect_args={"async_creator_fn": self._connector}
            | self._connect_arguments(pooled=settings.pgbouncer)
            | (
                {"prepared_statement_cache_size": 0, "prepared_statement_name_func": _statement_name}
                if settings.pgbouncer
                else {}
            ),
        )
        event.listen(engine.sync_engine, "connect", self._remember)
        event.listen(engine.sync_engine, "connect", _mark_new)
        event.listen(engine.sync_engine, "checkin", _mark_used)
        event.listen(engine.sync_engine, "checkout", _check_alive)
        if tracing_enabled():
            trace_statements(engine.sync_engine, self._url)
        return engine

    @cached_property
    def sessions(self) -> async_sessionmaker[AsyncSession]:
        """The factory of sessions; loaded objects stay readable after the commit."""
        return async_sessionmaker(self.engine, expire_on_commit=False)

    @cached_property
    def autocommit_sessions(self) -> async_sessionmaker[AsyncSession]:
        """The factory of sessions without a transaction, which saves a single read the round trips of BEGIN and COMMIT.

        Behind a pooler they are like other sessions, because a pooled connection gets its settings with BEGIN.
        """
        if self._settings.pgbouncer:
            return self.sessions
        return async_sessionmaker(self.engine.execution_options(isolation_level="AUTOCOMMIT"), expire_on_commit=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._notifier.close()
        await self._connector.settle(SETTLE_SECONDS)
        if "engine" in self.__dict__:
            closing = asyncio.ensure_future(self.engine.dispose())
            await asyncio.wait({closing}, timeout=SETTLE_SECONDS)
            for connection in list(self._opened):
                connection.terminate()  # closing normally would wait for a server that hangs
            await closing

    def notify(self, channel: str, payload: str) -> None:
        """Notify the listeners of `channel` soon; call it after the commit that they shall see.

        Returns at once, and an error is only logged at debug: listeners must poll too. Notifications of this process
        are sent one after the other, and requests that arrive meanwhile become one for each payload.
        """
        self._notifier.notify(channel, payload)

    async def ping(self) -> None:
        """Return when a new connection outside the pool answers; raises the driver's error when it does not.

        Raises `WrongEncoding` when the database's encoding is not UTF8.
        """
        async with self.own_connection() as connection:
            await connection.execute("select 1")
            check_encoding(connection)

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Open an asyncpg connection outside the pool; leaving the block never waits for a server that hangs."""
        connection = await self._connect(self._url, pooled=self._settings.pgbouncer)
        try:
            yield connection
            await connection.close()
        finally:
            connection.terminate()  # has no effect on a closed connection

    @asynccontextmanager
    async def direct_connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Open an asyncpg connection that bypasses any pooler, as LISTEN and session locks require."""
        connection = await self._connect(self._direct_url, pooled=False)
        try:
            yield connection
        finally:
            connection.terminate()

    def _remember(self, connection: AdaptedConnection, *_: object) -> None:
        self._opened.add(connection.driver_connection)

    def _pool(self) -> Pool | None:
        # Does not build the engine: a metrics scrape must not open the database.
        engine: AsyncEngine | None = self.__dict__.get("engine")
        return engine.pool if engine is not None else None

    async def _connect(self, url: URL, *, pooled: bool) -> asyncpg.Connection:
        arguments = url.translate_connect_args(username="user", database="database") | dict(url.query)
        return await self._connector(**arguments, **self._connect_arguments(pooled=pooled))

    def _connect_arguments(self, *, pooled: bool) -> dict[str, Any]:
        settings = self._settings
        name = {"application_name": settings.application_name}
        kind = {"statement_cache_size": 0, "connection_class": self._pooled_connection} if pooled else {}
        return {
            "timeout": settings.connect_timeout,
            # Needed beside the server's statement timeout, which a server that hangs does not enforce.
            "command_timeout": settings.statement_timeout + SETTLE_SECONDS,
            "server_settings": name if pooled else name | self._session,
        } | kind


def build_database(
    settings: DatabaseSettings, *, registry: CollectorRegistry | None = None, app_version: str | None = None
) -> Database:
    """Return the database, with `db_pool_*` gauges in `registry`; it connects at first use.

    `app_version` is stored in each message that the app sends: processes of older releases leave what they do not know
    to newer ones.
    """
    return Database(settings, registry=registry, app_version=app_version)


def _mark_new(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = math.inf


def _mark_used(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = time.monotonic()


def _check_alive(connection: AdaptedConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Test a connection that leaves the pool; a dead one is replaced together with all older ones.

    SQLAlchemy's own pre-ping waits as long as a statement may take, which is too long on a server that hangs. A new
    connection is not tested, so that a slow but working server stays usable, and neither is one that was just used and
    whose end the server has not closed.
    """
    fresh = time.monotonic() - record.info[_USED_AT] < _FRESH_SECONDS
    if fresh and not connection.driver_connection.is_closed():
        return
    try:
        connection.run_async(lambda driver: driver.execute("select 1", timeout=_PING_SECONDS))
    except Exception as error:
        raise InvalidatePoolError from error


def _statement_name() -> str:
    # A pooler lends one server connection to several clients, so the names must be unique among all of them.
    return f"__asyncpg_{uuid4()}__"

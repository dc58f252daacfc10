"""PostgreSQL by SQLAlchemy over asyncpg: settings, the engine and its pool, the unit of work."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID, uuid4

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import URL, QueuePool, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from tequipy_platform.domain.clock import Clock, IdSource
from tequipy_platform.domain.exceptions import Unavailable
from tequipy_platform.domain.unit_of_work import UnitOfWork
from tequipy_platform.infrastructure.outbox import (
    SqlInbox,
    SqlOutbox,
    postpone_message,
    purge_messages,
    settle_message,
)

DRIVER: Final = "postgresql+asyncpg"

_SETTLE_SECONDS: Final = 5.0
"""How long a cancelled task waits for its own commit or roll-back to end."""

_AWAY: Final = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InterfaceError,  # the connection closed under us
    asyncpg.TooManyConnectionsError,  # 53300
    asyncpg.AdminShutdownError,  # 57P01
    asyncpg.CrashShutdownError,  # 57P02
    asyncpg.CannotConnectNowError,  # 57P03: starting up, or in recovery
    OSError,  # refused, reset, no route, no such name; TimeoutError is one
)


class DatabaseSettings(BaseModel):
    """Where PostgreSQL is and how it is used; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: SecretStr
    """`postgresql+asyncpg://user:password@host:port/database`"""
    direct_url: SecretStr | None = None
    """Past the pooler, for LISTEN and migration locks; None: `url` is direct already."""
    pgbouncer: bool = False
    """`url` leads to pgbouncer in transaction mode: no prepared statements; the server's own timeouts are then set on
    the role (`ALTER ROLE … SET statement_timeout`), since pooled server connections take no start-up parameters."""
    application_name: str = "tequipy"
    pool_size: int = Field(default=5, ge=1)
    max_overflow: int = Field(default=10, ge=0)
    pool_timeout: float = Field(default=5, gt=0)
    pool_recycle: float = Field(default=600, gt=0)
    connect_timeout: float = Field(default=10, gt=0)
    statement_timeout: float = Field(default=30, gt=0)
    idle_in_transaction_timeout: float = Field(default=60, gt=0)

    @field_validator("url", "direct_url")
    @classmethod
    def _check_url(cls, secret: SecretStr | None) -> SecretStr | None:
        try:
            url = make_url(secret.get_secret_value()) if secret else None
        except ArgumentError:
            url = URL.create("none")  # not from the error: it quotes the URL
        except ValueError:  # the port
            raise PydanticCustomError(
                "url", "user and password should be percent-encoded (/ as %2F, @ as %40)"
            ) from None
        if url is not None and url.drivername != DRIVER:
            raise PydanticCustomError("url_scheme", "URL scheme should be postgresql+asyncpg")
        if url is not None and not url.database:
            raise PydanticCustomError("url_database", "URL should name a database")
        return secret


class Database:
    """One engine with its pool, built at first use, so that it may be made before the event loop and before a fork."""

    def __init__(self, settings: DatabaseSettings, *, registry: CollectorRegistry | None = None) -> None:
        self._settings = settings
        self._url = make_url(settings.url.get_secret_value())
        self._direct_url = make_url(settings.direct_url.get_secret_value()) if settings.direct_url else self._url
        if registry is not None:
            registry.register(_PoolCollector(self))

    @cached_property
    def engine(self) -> AsyncEngine:
        """The pooled engine."""
        settings = self._settings
        return create_async_engine(
            self._url,
            pool_size=settings.pool_size,
            max_overflow=settings.max_overflow,
            pool_timeout=settings.pool_timeout,
            pool_recycle=settings.pool_recycle,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=self._connect_arguments(pooled=settings.pgbouncer)
            | (
                {"prepared_statement_cache_size": 0, "prepared_statement_name_func": _statement_name}
                if settings.pgbouncer
                else {}
            ),
        )

    @cached_property
    def sessions(self) -> async_sessionmaker[AsyncSession]:
        """Makes sessions on the engine; what they loaded stays readable after the commit."""
        return async_sessionmaker(self.engine, expire_on_commit=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if "engine" in self.__dict__:
            await self.engine.dispose()

    async def ping(self) -> None:
        """Return when a new connection outside the pool answers; raises whatever the driver raises when it does not."""
        connection = await self._connect(self._url, pooled=self._settings.pgbouncer)
        try:
            await connection.execute("select 1")
            await connection.close()
        finally:
            connection.terminate()  # a no-op on a closed connection; never waits for a server that hangs

    @asynccontextmanager
    async def direct_connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Open an asyncpg connection of one's own, past any pooler, as LISTEN and session locks need it."""
        connection = await self._connect(self._direct_url, pooled=False)
        try:
            yield connection
        finally:
            connection.terminate()

    async def settle_message(self, message_id: UUID) -> None:
        """Record that a message of the outbox has ended."""
        async with self.sessions.begin() as session:
            await settle_message(session, message_id)

    async def postpone_message(self, message_id: UUID, by: timedelta) -> None:
        """Record that the next attempt of a message begins after `by`."""
        async with self.sessions.begin() as session:
            await postpone_message(session, message_id, by)

    async def purge_messages(self, *, outbox_age: timedelta, inbox_age: timedelta, batch_size: int) -> None:
        """Delete outbox rows published and inbox rows handled longer ago than that, one transaction a batch."""
        more = True
        while more:
            async with self.sessions.begin() as session:
                more = await purge_messages(session, outbox_age=outbox_age, inbox_age=inbox_age, limit=batch_size)

    async def _connect(self, url: URL, *, pooled: bool) -> asyncpg.Connection:
        arguments = url.translate_connect_args(username="user", database="database") | dict(url.query)
        return await asyncpg.connect(**arguments, **self._connect_arguments(pooled=pooled))

    def _connect_arguments(self, *, pooled: bool) -> dict[str, Any]:
        settings = self._settings
        server_settings = {"application_name": settings.application_name}
        if not pooled:
            server_settings |= {
                "statement_timeout": _milliseconds(settings.statement_timeout),
                "idle_in_transaction_session_timeout": _milliseconds(settings.idle_in_transaction_timeout),
            }
        return {
            "timeout": settings.connect_timeout,
            # A server that hangs cannot keep its own statement timeout.
            "command_timeout": settings.statement_timeout + _SETTLE_SECONDS,
            "server_settings": server_settings,
        } | ({"statement_cache_size": 0} if pooled else {})


class SqlUnitOfWork(UnitOfWork):
    """One session, one transaction; it takes a connection from the pool with its first statement.

    A subclass makes its repositories in `_bind`. When the server is away or the pool is exhausted, leaving the block
    raises `Unavailable`.
    """

    session: AsyncSession
    """Within the block only."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids

    def _bind(self, session: AsyncSession) -> None:
        """Make the repositories of a subclass on the session that has just begun."""

    async def __aenter__(self) -> Self:
        self.session = self._database.sessions()
        self.outbox = SqlOutbox(self.session, self._clock, self._ids)
        self.inbox = SqlInbox(self.session, self._clock)
        self._bind(self.session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await _settle(self._finish(commit=error is None))
        except Exception as failure:
            _raise_unavailable(failure)
            if error is None:
                raise
        if error is not None:
            _raise_unavailable(error)

    async def _finish(self, *, commit: bool) -> None:
        async with self.session:  # closing rolls back what was not committed
            if commit:
                await self.session.commit()


class _PoolCollector(Collector):
    """`db_pool_*`: the pool as it is at the moment of the scrape."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterable[Metric]:
        # Looked up, not made: a scrape does not build the engine.
        engine: AsyncEngine | None = self._database.__dict__.get("engine")
        pool = engine.pool if engine is not None else None
        counts = (pool.checkedout(), pool.checkedin(), pool.overflow()) if isinstance(pool, QueuePool) else (0, 0, 0)
        settings = self._database._settings  # noqa: SLF001 -- the collector is part of the database
        yield GaugeMetricFamily("db_pool_in_use", "Connections that are checked out.", counts[0])
        yield GaugeMetricFamily("db_pool_idle", "Connections that wait in the pool.", counts[1])
        yield GaugeMetricFamily("db_pool_overflow", "Connections open beyond the pool's size.", max(0, counts[2]))
        yield GaugeMetricFamily(
            "db_pool_limit", "Connections that may be open at once.", settings.pool_size + settings.max_overflow
        )


def _statement_name() -> str:
    # Behind a pooler two clients meet on one server connection: names must not.
    return f"__asyncpg_{uuid4()}__"


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


async def _settle(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end although the caller is cancelled: half a commit is nobody's intention."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        done, _ = await asyncio.wait({task}, timeout=_SETTLE_SECONDS)
        if not done:
            task.cancel()
        elif not task.cancelled():
            task.exception()  # seen: the cancellation is what the caller gets
        raise


def _raise_unavailable(error: BaseException) -> None:
    """Raise `Unavailable` when the error says that the server is away or the pool exhausted; return otherwise."""
    original = error
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            raise Unavailable from error
        # The driver's own error stands behind SQLAlchemy's translation of it.
        original = (error.orig.__cause__ if error.orig else None) or error
    if isinstance(original, (PoolTimeoutError, *_AWAY)):
        raise Unavailable from error

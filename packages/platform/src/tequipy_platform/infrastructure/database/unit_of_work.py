"""The unit of work on PostgreSQL, and what the driver's errors mean to whoever called."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform.domain.clock import Clock, IdSource
from tequipy_platform.domain.exceptions import Unavailable
from tequipy_platform.domain.unit_of_work import Conflicted, UnitOfWork
from tequipy_platform.infrastructure.database.engine import SETTLE_SECONDS, Database
from tequipy_platform.infrastructure.outbox import SqlInbox, SqlOutbox

_AWAY: Final = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InterfaceError,  # the connection closed under us
    asyncpg.InvalidAuthorizationSpecificationError,  # class 28: a password that was changed, a role without LOGIN
    asyncpg.InvalidCatalogNameError,  # 3D000: no such database
    asyncpg.InsufficientResourcesError,  # class 53: no connection, memory or disk left
    asyncpg.AdminShutdownError,  # 57P01
    asyncpg.CrashShutdownError,  # 57P02
    asyncpg.CannotConnectNowError,  # 57P03: starting up, or in recovery
    asyncpg.QueryCanceledError,  # 57014: over the statement time-out
    asyncpg.IdleInTransactionSessionTimeoutError,  # 25P03
    asyncpg.ReadOnlySQLTransactionError,  # 25006: a server that is no longer, or not yet, the primary
    asyncpg.LockNotAvailableError,  # 55P03: over the lock time-out
    OSError,  # refused, reset, no route, no such name; TimeoutError is one
)
_CONFLICTS: Final = (
    asyncpg.SerializationError,  # 40001
    asyncpg.DeadlockDetectedError,  # 40P01
)


class SqlUnitOfWork(UnitOfWork):
    """One session, one transaction; it takes a connection from the pool with its first statement.

    A subclass makes its repositories in `_bind`. When the server is away or the pool is exhausted, leaving the block
    raises `Unavailable`; when the server undid it for the sake of a concurrent transaction, `Conflicted`.
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
            _translate(failure)
            if error is None:
                raise
        if error is not None:
            _translate(error)

    async def _finish(self, *, commit: bool) -> None:
        async with self.session:  # closing rolls back what was not committed
            if commit:
                await self.session.commit()


async def _settle(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end although the caller is cancelled: half a commit is nobody's intention."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        done, _ = await asyncio.wait({task}, timeout=SETTLE_SECONDS)
        if not done:
            task.cancel()
        elif not task.cancelled():
            task.exception()  # seen: the cancellation is what the caller gets
        raise


def _translate(error: BaseException) -> None:
    """Raise what the driver's error means to a caller, if it is the server's state; return otherwise."""
    original = error
    if isinstance(error, DBAPIError):
        # The driver's own error stands behind SQLAlchemy's translation of it.
        original = (error.orig.__cause__ if error.orig else None) or error
        if isinstance(original, _CONFLICTS):
            raise Conflicted from error
        if error.connection_invalidated:
            raise Unavailable from error
    if isinstance(original, (PoolTimeoutError, *_AWAY)):
        raise Unavailable from error

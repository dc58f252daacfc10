"""One transaction on PostgreSQL, and the translation of the driver's errors into errors of the port."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform._errors import Unavailable
from tequipy_platform._unit_of_work import Conflicted
from tequipy_platform.database.engine import SETTLE_SECONDS, Database

_AWAY: Final = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InterfaceError,  # the connection was closed while it was in use
    asyncpg.InvalidAuthorizationSpecificationError,  # class 28: a password that was changed, a role without LOGIN
    asyncpg.InvalidCatalogNameError,  # 3D000: no such database
    asyncpg.InsufficientResourcesError,  # class 53: no connection, memory or disk left
    asyncpg.AdminShutdownError,  # 57P01
    asyncpg.CrashShutdownError,  # 57P02
    asyncpg.CannotConnectNowError,  # 57P03: starting up, or in recovery
    asyncpg.QueryCanceledError,  # 57014: over the statement time-out
    asyncpg.IdleInTransactionSessionTimeoutError,  # 25P03
    asyncpg.ReadOnlySQLTransactionError,  # 25006: the server is a replica, or was demoted to one
    asyncpg.LockNotAvailableError,  # 55P03: over the lock time-out
    OSError,  # refused, reset, no route, no such name; TimeoutError is one
)
_CONFLICTS: Final = (
    asyncpg.SerializationError,  # 40001
    asyncpg.DeadlockDetectedError,  # 40P01
)


class SqlTransaction:
    """One session in one transaction; it takes a connection from the pool with its first statement.

    Leaving the block normally commits; leaving it by an exception rolls back. It raises `Unavailable` when the server
    cannot be reached or the pool is exhausted, and `Conflicted` when the server rolled back in favour of a concurrent
    transaction.

    With `autocommit`, each statement is its own transaction, which is faster by two round trips: for a single read.
    """

    session: AsyncSession
    """Set within the block only."""

    def __init__(self, database: Database, *, autocommit: bool = False) -> None:
        self._database = database
        self._autocommit = autocommit

    async def __aenter__(self) -> Self:
        self.session = self._database.autocommit_sessions() if self._autocommit else self._database.sessions()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await _run_to_end(self._finish(commit=error is None))
        except Exception as failure:
            _translate(failure)
            if error is None:
                raise
        if error is not None:
            _translate(error)

    async def _finish(self, *, commit: bool) -> None:
        async with self.session:  # closing rolls back uncommitted changes
            if commit:
                await self._before_commit()
                await self.session.commit()

    async def _before_commit(self) -> None:
        """Write what a subclass has collected in the block; an error rolls back."""


async def _run_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end even if the caller is cancelled, so that a commit is never interrupted."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        done, _ = await asyncio.wait({task}, timeout=SETTLE_SECONDS)
        if not done:
            task.cancel()
        elif not task.cancelled():
            task.exception()  # marks it as retrieved; the caller gets the cancellation
        raise


def _translate(error: BaseException) -> None:
    """Raise `Conflicted` or `Unavailable` if the driver's error means that; return otherwise."""
    original = error
    if isinstance(error, DBAPIError):
        # SQLAlchemy wraps the driver's error in an adapter's error, whose cause it is.
        original = (error.orig.__cause__ if error.orig else None) or error
        if isinstance(original, _CONFLICTS):
            raise Conflicted from error
        if error.connection_invalidated:
            raise Unavailable from error
    if isinstance(original, (PoolTimeoutError, *_AWAY)):
        raise Unavailable from error

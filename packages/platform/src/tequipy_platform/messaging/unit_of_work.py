"""The unit of work on PostgreSQL: one transaction with outbox, inbox and idempotency keys."""

from typing import Self

from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform._clock import Clock, IdSource
from tequipy_platform._unit_of_work import UnitOfWork
from tequipy_platform.database import Database, SqlTransaction
from tequipy_platform.messaging.idempotency import SqlIdempotencyKeys
from tequipy_platform.messaging.models import OUTBOX_CHANNEL, SCHEMA
from tequipy_platform.messaging.outbox import SqlInbox, SqlOutbox


class SqlUnitOfWork(SqlTransaction, UnitOfWork):
    """A transaction with outbox, inbox and idempotency keys; a subclass creates its repositories in `_bind`."""

    outbox: SqlOutbox

    def __init__(self, database: Database, clock: Clock, new_id: IdSource, *, autocommit: bool = False) -> None:
        super().__init__(database, autocommit=autocommit)
        self._clock = clock
        self._new_id = new_id

    def _bind(self, session: AsyncSession) -> None:
        """Create a subclass's repositories on the new session."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.outbox = SqlOutbox(self.session, self._clock, self._new_id, producer_version=self._database.app_version)
        self.inbox = SqlInbox(self.session, self._clock)
        self.idempotency = SqlIdempotencyKeys(self.session, self._clock)
        self._bind(self.session)
        return self

    async def _finish(self, *, commit: bool) -> None:
        await super()._finish(commit=commit)
        if commit and self.outbox.has_rows:
            self._database.notify(OUTBOX_CHANNEL, self._database.schemas.get(SCHEMA, SCHEMA))

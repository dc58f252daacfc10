"""The base class of the repositories on PostgreSQL."""

from typing import TypeVar, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, Update
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_auth.infrastructure.models import (
    Base,
    DeviceRow,
    EmailChangeRow,
    InvitationRow,
    OneTimeTokenRow,
    RegistrationRow,
    SessionRow,
)
from tequipy_platform.database import delete_batch

R = TypeVar("R")
Temporary = RegistrationRow | InvitationRow | SessionRow | OneTimeTokenRow | DeviceRow | EmailChangeRow
"""Rows that expire."""


def table_of(row: type[Base]) -> Table:
    """Return the table of a model, for statements that bypass the ORM: its part of a statement takes longer."""
    return cast("Table", row.__table__)


class Repository:
    """Runs statements in the SQLAlchemy session of a unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def _one(self, query: Select[R], **parameters: UUID | str) -> R | None:
        """Return the current row, even if the session has read an older version of it."""
        rows = await self._session.scalars(query, parameters, execution_options={"populate_existing": True})
        return rows.one_or_none()

    async def _purge(self, table: type[Temporary], condition: ColumnElement[bool], limit: int) -> int:
        """Delete up to `limit` rows that match the condition and that nobody has locked; return the number."""
        return await delete_batch(self._session, table, condition, limit=limit)

    async def _update(self, statement: Update) -> bool:
        """Run an update with a `returning` clause; return whether it changed a row."""
        changed = await self._session.execute(statement.execution_options(synchronize_session=False))
        return changed.first() is not None

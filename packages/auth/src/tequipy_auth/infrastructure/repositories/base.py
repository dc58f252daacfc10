"""What all repositories on PostgreSQL stand on."""

from typing import TypeVar

from sqlalchemy import ColumnElement, Select, Update, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_auth.infrastructure.models import DeviceRow, OneTimeTokenRow, RegistrationRow, SessionRow

R = TypeVar("R")
Temporary = RegistrationRow | SessionRow | OneTimeTokenRow | DeviceRow


class Repository:
    """What all repositories stand on."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def _one(self, query: Select[R]) -> R | None:
        """Return the row as it is now, whatever the session has seen of it before."""
        rows = await self._session.scalars(query.execution_options(populate_existing=True))
        return rows.one_or_none()

    async def _purge(self, table: type[Temporary], over: ColumnElement[bool], limit: int) -> int:
        """Delete up to so many rows that are over and that nobody holds; tell how many."""
        found = select(table.id).where(over).limit(limit).with_for_update(skip_locked=True)
        deleted = await self._session.execute(delete(table).where(table.id.in_(found)).returning(table.id))
        return len(deleted.all())

    async def _changes(self, statement: Update) -> bool:
        """Run an update that returns what it changed; tell whether that was anything."""
        changed = await self._session.execute(statement.execution_options(synchronize_session=False))
        return changed.first() is not None

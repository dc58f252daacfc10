"""Charges of mail budgets on PostgreSQL, made in the transaction that decides to send the mail."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.repositories import MailCharges
from tequipy_auth.infrastructure.models import MailChargeRow as Row
from tequipy_auth.infrastructure.repositories.base import Repository
from tequipy_platform.database import delete_batch


class SqlMailCharges(Repository, MailCharges):
    """Rows of `auth.mail_charges`."""

    async def charge(self, message_id: UUID, key: str, *, at: datetime, since: datetime, limit: int) -> bool:
        """Count other messages of the key, then insert or update this one; calls for one key are serialised."""
        await self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
        others = select(func.count()).where(Row.key == key, Row.charged_at > since, Row.message_id != message_id)
        if (await self._session.scalar(others) or 0) >= limit:
            return False
        row = insert(Row).values(message_id=message_id, key=key, charged_at=at)
        await self._session.execute(
            row.on_conflict_do_update(index_elements=[Row.message_id], set_={"charged_at": row.excluded.charged_at})
        )
        return True

    async def release(self, message_id: UUID) -> None:
        """Delete a row."""
        await self._session.execute(delete(Row).where(Row.message_id == message_id))

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete old rows that nobody has locked."""
        return await delete_batch(self._session, Row, Row.charged_at <= before, limit=limit)

"""Changes of address on PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.entities import EmailChange, EmailChangeState
from tequipy_auth.domain.repositories import EmailChanges
from tequipy_auth.infrastructure.mapping import email_change_of
from tequipy_auth.infrastructure.models import EmailChangeRow
from tequipy_auth.infrastructure.repositories.base import Repository


class SqlEmailChanges(Repository, EmailChanges):
    """Rows of `auth.email_changes`."""

    async def add(self, change: EmailChange) -> None:
        """Insert a change."""
        await self._session.execute(
            insert(EmailChangeRow).values(
                id=change.id,
                user_id=change.user_id,
                number=change.number,
                old_email=change.old.written,
                old_canonical_email=change.old.canonical,
                new_email=change.new.written,
                new_canonical_email=change.new.canonical,
                requested_at=change.requested_at,
                undo_until=change.undo_until,
                state=change.state.value,
            )
        )

    async def get(self, change_id: UUID) -> EmailChange | None:
        """Select a change."""
        row = await self._one(select(EmailChangeRow).where(EmailChangeRow.id == change_id))
        return email_change_of(row) if row else None

    async def of(self, user_id: UUID) -> Sequence[EmailChange]:
        """Select the changes of an account."""
        rows = await self._session.scalars(
            select(EmailChangeRow)
            .where(EmailChangeRow.user_id == user_id)
            .order_by(EmailChangeRow.number.desc())
            .execution_options(populate_existing=True)
        )
        return [email_change_of(row) for row in rows]

    async def set_state(self, change_id: UUID, state: EmailChangeState) -> None:
        """Update the state."""
        await self._session.execute(
            update(EmailChangeRow)
            .where(EmailChangeRow.id == change_id)
            .values(state=state.value)
            .execution_options(synchronize_session=False)
        )

    async def close_pending(self, user_id: UUID, *, keep: int = 0) -> None:
        """Update the pending changes of an account but the latest."""
        pending = (EmailChangeRow.user_id == user_id, EmailChangeRow.state == EmailChangeState.PENDING.value)
        older = select(EmailChangeRow.id).where(*pending).order_by(EmailChangeRow.number.desc()).offset(keep)
        await self._session.execute(
            update(EmailChangeRow)
            .where(EmailChangeRow.id.in_(older))
            .values(state=EmailChangeState.CLOSED.value)
            .execution_options(synchronize_session=False)
        )

    async def delete(self, change_id: UUID) -> None:
        """Delete a change."""
        await self._session.execute(delete(EmailChangeRow).where(EmailChangeRow.id == change_id))

    async def is_restorable(self, canonical_email: str, *, at: datetime, to_other_than: UUID | None = None) -> bool:
        """Select a confirmed change of another account that can be undone."""
        found = await self._session.scalar(
            select(EmailChangeRow.id)
            .where(
                EmailChangeRow.old_canonical_email == canonical_email,
                EmailChangeRow.state == EmailChangeState.CONFIRMED.value,
                EmailChangeRow.undo_until > at,
                EmailChangeRow.user_id.is_distinct_from(to_other_than),
            )
            .limit(1)
        )
        return found is not None

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete changes that cannot be undone any more."""
        return await self._purge(EmailChangeRow, EmailChangeRow.undo_until <= before, limit)

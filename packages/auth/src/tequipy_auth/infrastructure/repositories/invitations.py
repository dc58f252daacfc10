"""Invitations on PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, select
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.entities import Invitation
from tequipy_auth.domain.repositories import Invitations
from tequipy_auth.infrastructure.mapping import invitation_of
from tequipy_auth.infrastructure.models import InvitationRow, UserRow
from tequipy_auth.infrastructure.repositories.base import Repository
from tequipy_platform import Page, PageRequest


class SqlInvitations(Repository, Invitations):
    """Rows of `auth.invitations`."""

    async def put(self, invitation: Invitation) -> None:
        """Insert an invitation, or replace all columns of the address's row."""
        values = {
            "id": invitation.id,
            "email": invitation.email.written,
            "roles": invitation.roles,
            "invited_by": invitation.invited_by,
            "created_at": invitation.created_at,
            "expires_at": invitation.expires_at,
        }
        statement = insert(InvitationRow).values(canonical_email=invitation.email.canonical, **values)
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=[InvitationRow.canonical_email], set_=values)
        )

    async def get(self, invitation_id: UUID) -> Invitation | None:
        """Select an invitation."""
        row = await self._one(select(InvitationRow).where(InvitationRow.id == invitation_id))
        return invitation_of(row) if row else None

    async def of(self, canonical_email: str) -> Invitation | None:
        """Select the invitation of an address."""
        row = await self._one(select(InvitationRow).where(InvitationRow.canonical_email == canonical_email))
        return invitation_of(row) if row else None

    async def page(self, request: PageRequest, *, at: datetime) -> Page[Invitation]:
        """Select invitations in the order of their ids, which grow with time."""
        query = select(InvitationRow).where(*_is_open(at))
        if request.after is not None:
            query = query.where(InvitationRow.id < request.after)
        query = query.order_by(InvitationRow.id.desc()).limit(request.rows)
        rows = await self._session.scalars(query.execution_options(populate_existing=True))
        return Page.of([invitation_of(row) for row in rows], request, attrgetter("id"))

    async def any_has_role(self, role: str, *, at: datetime) -> bool:
        """Select one open invitation with the role."""
        query = select(InvitationRow.id).where(*_is_open(at), InvitationRow.roles.contains([role]))
        return await self._session.scalar(query.limit(1)) is not None

    async def delete_for(self, canonical_email: str) -> None:
        """Delete the row of an address."""
        await self._session.execute(delete(InvitationRow).where(InvitationRow.canonical_email == canonical_email))

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired invitations."""
        return await self._purge(InvitationRow, InvitationRow.expires_at <= before, limit)


def _is_open(at: datetime) -> Sequence[ColumnElement[bool]]:
    """Return the conditions for an invitation that has not expired, and whose address has no account."""
    has_account = exists().where(UserRow.canonical_email == InvitationRow.canonical_email)
    return InvitationRow.expires_at > at, ~has_account

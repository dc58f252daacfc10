"""Invitations in memory."""

from datetime import datetime
from operator import attrgetter
from uuid import UUID

from tequipy_auth.domain.entities import Invitation
from tequipy_auth.domain.repositories import Invitations
from tequipy_auth.testing.repositories.accounts import MemoryUsers
from tequipy_auth.testing.repositories.purging import purge
from tequipy_platform import Page, PageRequest


class MemoryInvitations(Invitations):
    """Stores invitations by canonical address."""

    def __init__(self, users: MemoryUsers) -> None:
        self.rows: dict[str, Invitation] = {}
        self._users = users

    async def put(self, invitation: Invitation) -> None:
        """Store or replace an invitation."""
        self.rows[invitation.email.canonical] = invitation

    async def get(self, invitation_id: UUID) -> Invitation | None:
        """Return an invitation."""
        return next((row for row in self.rows.values() if row.id == invitation_id), None)

    async def of(self, canonical_email: str) -> Invitation | None:
        """Return the invitation of an address."""
        return self.rows.get(canonical_email)

    async def page(self, request: PageRequest, *, at: datetime) -> Page[Invitation]:
        """Return a page of open invitations, the greatest ids first."""
        rows = [
            row
            for row in sorted(self._open(at), key=attrgetter("id"), reverse=True)
            if request.after is None or row.id < request.after
        ]
        return Page.of(rows[: request.rows], request, attrgetter("id"))

    async def any_has_role(self, role: str, *, at: datetime) -> bool:
        """Return whether an open invitation has the role."""
        return any(role in row.roles for row in self._open(at))

    async def delete_for(self, canonical_email: str) -> None:
        """Delete an invitation."""
        self.rows.pop(canonical_email, None)

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired invitations."""
        return purge(self.rows, lambda row: row.expires_at <= before, limit)

    def _open(self, at: datetime) -> list[Invitation]:
        taken = {user.email.canonical for user in self._users.rows.values()}
        return [row for row in self.rows.values() if row.expires_at > at and row.email.canonical not in taken]

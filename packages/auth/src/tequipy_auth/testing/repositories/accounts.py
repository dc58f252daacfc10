"""Registrations and accounts in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from tequipy_auth.domain.entities import EmailChange, EmailChangeState, Registration, User, UserStatus
from tequipy_auth.domain.exceptions import EmailTaken
from tequipy_auth.domain.passwords import MAX_STORED_COST
from tequipy_auth.domain.repositories import EmailChanges, Registrations, UserFilter, Users
from tequipy_auth.domain.roles import ADMIN
from tequipy_auth.domain.value_objects import EmailAddress, PasswordHash
from tequipy_auth.testing.repositories.purging import purge
from tequipy_platform import Page, PageRequest


class MemoryRegistrations(Registrations):
    """Stores registrations by id."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Registration] = {}

    async def add(self, registration: Registration) -> None:
        """Store a registration."""
        self.rows[registration.id] = registration

    async def get(self, registration_id: UUID) -> Registration | None:
        """Return a registration."""
        return self.rows.get(registration_id)

    async def all_of(self, canonical_email: str) -> Sequence[Registration]:
        """Return the registrations of an address."""
        rows = [row for row in self.rows.values() if row.email.canonical == canonical_email]
        return sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)

    async def newest_of(self, canonical_email: str, *, at: datetime) -> Registration | None:
        """Return the latest unexpired registration of an address."""
        rows = [row for row in self.rows.values() if row.email.canonical == canonical_email and row.expires_at > at]
        return max(rows, key=lambda row: (row.created_at, row.id), default=None)

    async def count_pending(self, canonical_email: str, *, at: datetime) -> int:
        """Count the unexpired registrations of an address."""
        return sum(row.email.canonical == canonical_email and row.expires_at > at for row in self.rows.values())

    async def lock(self, canonical_email: str) -> None:
        """Do nothing, because units of work in memory run one after the other."""

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired registrations."""
        return purge(self.rows, lambda row: row.expires_at <= before, limit)

    async def delete_for(self, canonical_email: str) -> None:
        """Delete all registrations of an address."""
        for row in [row for row in self.rows.values() if row.email.canonical == canonical_email]:
            del self.rows[row.id]


class MemoryUsers(Users):
    """Stores accounts by id, and the times of their version changes."""

    def __init__(self, email_changes: EmailChanges) -> None:
        self.rows: dict[UUID, User] = {}
        self.superseded_at: dict[UUID, datetime] = {}
        self._email_changes = email_changes

    async def add(self, user: User) -> None:
        """Store an account; raises `EmailTaken`."""
        await self._refuse_taken(user.id, user.email, at=user.created_at)
        self.rows[user.id] = user

    async def get(self, user_id: UUID) -> User | None:
        """Return an account."""
        return self.rows.get(user_id)

    async def by_email(self, canonical_email: str) -> User | None:
        """Return the account of an address."""
        return next((row for row in self.rows.values() if row.email.canonical == canonical_email), None)

    async def supersede(self, user_id: UUID, *, at: datetime) -> int | None:
        """Increment the account's version."""
        row = self.rows.get(user_id)
        if row is None:
            return None
        self.rows[user_id] = replace(row, version=row.version + 1)
        self.superseded_at[user_id] = at
        return row.version

    async def superseded_since(self, at: datetime) -> Mapping[UUID, tuple[int, datetime]]:
        """Return the accounts whose version was incremented after that time."""
        return {
            user_id: (self.rows[user_id].version, changed_at)
            for user_id, changed_at in self.superseded_at.items()
            if changed_at > at
        }

    async def lock(self, user_id: UUID) -> User | None:
        """Return an account; no lock is needed, because units of work in memory run one after the other."""
        return self.rows.get(user_id)

    async def highest_password_cost(self) -> int:
        """Return the highest stored cost that may be checked."""
        costs = (row.password.cost for row in self.rows.values())
        return max((cost for cost in costs if cost <= MAX_STORED_COST), default=0)

    async def set_password(self, user_id: UUID, password: PasswordHash) -> None:
        """Set a new password."""
        if user_id in self.rows:
            self._change(user_id, password=password, password_epoch=self.rows[user_id].password_epoch + 1)

    async def renew_password_hash(self, user_id: UUID, password: PasswordHash) -> None:
        """Replace the password's hash."""
        self._change(user_id, password=password)

    async def set_verified(self, user_id: UUID) -> None:
        """Mark the address as verified."""
        self._change(user_id, email_verified=True)

    async def set_email(self, user_id: UUID, email: EmailAddress, *, at: datetime) -> User | None:
        """Replace the address; raises `EmailTaken`."""
        await self._refuse_taken(user_id, email, at=at)
        self._change(user_id, email=email, email_verified=True)
        return self.rows.get(user_id)

    async def set_name(self, user_id: UUID, name: str | None) -> User | None:
        """Replace the name."""
        self._change(user_id, name=name)
        return self.rows.get(user_id)

    async def set_roles(self, user_id: UUID, roles: tuple[str, ...]) -> None:
        """Replace the roles."""
        self._change(user_id, roles=roles)

    async def set_status(self, user_id: UUID, status: UserStatus, *, erase_at: datetime | None = None) -> None:
        """Set the status and the time of the erasure."""
        self._change(user_id, status=status, erase_at=erase_at)

    async def lock_administrators(self) -> None:
        """Do nothing, because units of work in memory run one after the other."""

    async def has_other_administrator(self, user_id: UUID) -> bool:
        """Return whether an active administrator exists beside the account."""
        return any(
            row.id != user_id and ADMIN in row.roles and row.status is UserStatus.ACTIVE for row in self.rows.values()
        )

    async def any_has_role(self, role: str) -> bool:
        """Return whether an account has the role."""
        return any(role in row.roles for row in self.rows.values())

    async def due_for_erasure(self, *, at: datetime, limit: int) -> Sequence[UUID]:
        """Return accounts whose erasure is due."""
        due = [row for row in self.rows.values() if row.erase_at is not None and row.erase_at <= at]
        return [row.id for row in due if row.status is UserStatus.DELETING][:limit]

    async def erase(self, user_id: UUID) -> None:
        """Delete an account; its sessions stay, but cannot be used."""
        self.rows.pop(user_id, None)
        self.superseded_at.pop(user_id, None)

    async def page(self, request: PageRequest, wanted: UserFilter) -> Page[User]:
        """Return a page of accounts, the greatest ids first."""
        text = (wanted.text or "").casefold()
        rows = [
            row
            for row in sorted(self.rows.values(), key=attrgetter("id"), reverse=True)
            if (request.after is None or row.id < request.after)
            and wanted.status in {None, row.status}
            and (wanted.role is None or wanted.role in row.roles)
            and (
                row.email.canonical.startswith(text)
                or row.email.written.casefold().startswith(text)
                or text in (row.name or "").casefold()
            )
        ]
        return Page.of(rows[: request.rows], request, attrgetter("id"))

    async def _refuse_taken(self, user_id: UUID, email: EmailAddress, *, at: datetime) -> None:
        owner = await self.by_email(email.canonical)
        if owner is not None and owner.id != user_id:
            raise EmailTaken
        if await self._email_changes.is_restorable(email.canonical, at=at, to_other_than=user_id):
            raise EmailTaken

    def _change(self, user_id: UUID, **values: Any) -> None:  # noqa: ANN401 -- fields of any type
        if user_id in self.rows:
            self.rows[user_id] = replace(self.rows[user_id], **values)


class MemoryEmailChanges(EmailChanges):
    """Stores changes of address by id."""

    def __init__(self) -> None:
        self.rows: dict[UUID, EmailChange] = {}

    async def add(self, change: EmailChange) -> None:
        """Store a change."""
        self.rows[change.id] = change

    async def get(self, change_id: UUID) -> EmailChange | None:
        """Return a change."""
        return self.rows.get(change_id)

    async def of(self, user_id: UUID) -> Sequence[EmailChange]:
        """Return the changes of an account."""
        theirs = [row for row in self.rows.values() if row.user_id == user_id]
        return sorted(theirs, key=attrgetter("number"), reverse=True)

    async def set_state(self, change_id: UUID, state: EmailChangeState) -> None:
        """Set the state."""
        if change_id in self.rows:
            self.rows[change_id] = replace(self.rows[change_id], state=state)

    async def close_pending(self, user_id: UUID, *, keep: int = 0) -> None:
        """Close all pending changes of an account but the latest."""
        pending = [row for row in await self.of(user_id) if row.state is EmailChangeState.PENDING]
        for row in pending[keep:]:
            await self.set_state(row.id, EmailChangeState.CLOSED)

    async def delete(self, change_id: UUID) -> None:
        """Delete a change."""
        self.rows.pop(change_id, None)

    async def is_restorable(self, canonical_email: str, *, at: datetime, to_other_than: UUID | None = None) -> bool:
        """Return whether a confirmed change of another account can be undone."""
        return any(
            row.old.canonical == canonical_email
            and row.state is EmailChangeState.CONFIRMED
            and row.undo_until > at
            and row.user_id != to_other_than
            for row in self.rows.values()
        )

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete changes that cannot be undone any more."""
        return purge(self.rows, lambda row: row.undo_until <= before, limit)

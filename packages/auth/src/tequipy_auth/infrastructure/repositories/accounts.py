"""Registrations and accounts on PostgreSQL; operations with races are single statements."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_auth.domain.entities import Registration, User, UserStatus
from tequipy_auth.domain.exceptions import EmailTaken
from tequipy_auth.domain.passwords import MAX_STORED_COST
from tequipy_auth.domain.repositories import EmailChanges, Registrations, UserFilter, Users
from tequipy_auth.domain.roles import ADMIN
from tequipy_auth.domain.value_objects import EmailAddress, PasswordHash
from tequipy_auth.infrastructure.mapping import password_columns, registration_of, user_of
from tequipy_auth.infrastructure.models import RegistrationRow, UserRow
from tequipy_auth.infrastructure.repositories.base import Repository
from tequipy_platform import Page, PageRequest


class SqlRegistrations(Repository, Registrations):
    """Rows of `auth.registrations`."""

    async def add(self, registration: Registration) -> None:
        """Insert a registration."""
        await self._session.execute(
            insert(RegistrationRow).values(
                id=registration.id,
                email=registration.email.written,
                canonical_email=registration.email.canonical,
                name=registration.name,
                created_at=registration.created_at,
                expires_at=registration.expires_at,
                **password_columns(registration.password),
            )
        )

    async def get(self, registration_id: UUID) -> Registration | None:
        """Select a registration."""
        row = await self._one(select(RegistrationRow).where(RegistrationRow.id == registration_id))
        return registration_of(row) if row else None

    async def all_of(self, canonical_email: str) -> Sequence[Registration]:
        """Select the registrations of an address."""
        query = select(RegistrationRow).where(RegistrationRow.canonical_email == canonical_email)
        latest_first = query.order_by(RegistrationRow.created_at.desc(), RegistrationRow.id.desc())
        rows = await self._session.scalars(latest_first.execution_options(populate_existing=True))
        return [registration_of(row) for row in rows]

    async def newest_of(self, canonical_email: str, *, at: datetime) -> Registration | None:
        """Select the latest registration of an address."""
        row = await self._one(
            select(RegistrationRow)
            .where(RegistrationRow.canonical_email == canonical_email, RegistrationRow.expires_at > at)
            .order_by(RegistrationRow.created_at.desc(), RegistrationRow.id.desc())
            .limit(1)
        )
        return registration_of(row) if row else None

    async def count_pending(self, canonical_email: str, *, at: datetime) -> int:
        """Count the registrations of an address."""
        pending = RegistrationRow.canonical_email == canonical_email, RegistrationRow.expires_at > at
        return await self._session.scalar(select(func.count()).select_from(RegistrationRow).where(*pending)) or 0

    async def lock(self, canonical_email: str) -> None:
        """Take an advisory lock, because the address may have no row to lock yet."""
        key = func.hashtextextended(f"registrations {canonical_email}", 0)
        await self._session.execute(select(func.pg_advisory_xact_lock(key)))

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired registrations."""
        return await self._purge(RegistrationRow, RegistrationRow.expires_at <= before, limit)

    async def delete_for(self, canonical_email: str) -> None:
        """Delete all registrations of an address."""
        await self._session.execute(delete(RegistrationRow).where(RegistrationRow.canonical_email == canonical_email))


# Built once, because building a statement and its cache key takes longer than running it.
_BY_ID: Final = select(UserRow).where(UserRow.id == bindparam("user_id"))
_BY_EMAIL: Final = select(UserRow).where(UserRow.canonical_email == bindparam("address"))
# Except the id, so that inserting a session does not wait.
_LOCKED: Final = _BY_ID.with_for_update(key_share=True)
_HIGHEST_COST: Final = select(func.max(UserRow.password_cost)).where(UserRow.password_cost <= MAX_STORED_COST)


class SqlUsers(Repository, Users):
    """Rows of `auth.users`."""

    def __init__(self, session: AsyncSession, email_changes: EmailChanges) -> None:
        super().__init__(session)
        self._email_changes = email_changes

    async def add(self, user: User) -> None:
        """Insert an account; waits for a concurrent one of the same address to commit, then raises `EmailTaken`."""
        async with self._session.begin_nested():
            await self._insert(user)
            await self._refuse_restorable(user.id, user.email, at=user.created_at)

    async def _insert(self, user: User) -> None:
        added = await self._session.scalar(
            insert(UserRow)
            .values(
                id=user.id,
                email=user.email.written,
                canonical_email=user.email.canonical,
                email_verified=user.email_verified,
                name=user.name,
                roles=user.roles,
                version=user.version,
                password_epoch=user.password_epoch,
                created_at=user.created_at,
                status=user.status.value,
                erase_at=user.erase_at,
                last_login_at=user.last_login_at,
                **password_columns(user.password),
            )
            # Not a database error, which would abort the transaction.
            .on_conflict_do_nothing(index_elements=[UserRow.canonical_email])
            .returning(UserRow.id)
        )
        if added is None:
            raise EmailTaken

    async def get(self, user_id: UUID) -> User | None:
        """Select an account."""
        row = await self._one(_BY_ID, user_id=user_id)
        return user_of(row) if row else None

    async def by_email(self, canonical_email: str) -> User | None:
        """Select the account of an address."""
        row = await self._one(_BY_EMAIL, address=canonical_email)
        return user_of(row) if row else None

    async def supersede(self, user_id: UUID, *, at: datetime) -> int | None:
        """Increment an account's version."""
        version = await self._session.scalar(
            update(UserRow)
            .where(UserRow.id == user_id)
            .values(version=UserRow.version + 1, version_changed_at=at)
            .returning(UserRow.version)
            .execution_options(synchronize_session=False)
        )
        return None if version is None else version - 1

    async def superseded_since(self, at: datetime) -> Mapping[UUID, tuple[int, datetime]]:
        """Select the accounts whose version changed after that moment."""
        rows = await self._session.execute(
            select(UserRow.id, UserRow.version, UserRow.version_changed_at).where(UserRow.version_changed_at > at)
        )
        return {user_id: (version, changed_at) for user_id, version, changed_at in rows if changed_at is not None}

    async def lock(self, user_id: UUID) -> User | None:
        """Select an account for update."""
        row = await self._one(_LOCKED, user_id=user_id)
        return user_of(row) if row else None

    async def highest_password_cost(self) -> int:
        """Select the highest cost in the index that may be checked."""
        return await self._session.scalar(_HIGHEST_COST) or 0

    async def set_password(self, user_id: UUID, password: PasswordHash) -> None:
        """Update the password columns and increment the password epoch."""
        await self._set(user_id, password_epoch=UserRow.password_epoch + 1, **password_columns(password))

    async def renew_password_hash(self, user_id: UUID, password: PasswordHash) -> None:
        """Update the password columns."""
        await self._set(user_id, **password_columns(password))

    async def set_verified(self, user_id: UUID) -> None:
        """Mark the address as verified."""
        await self._set(user_id, email_verified=True)

    async def set_email(self, user_id: UUID, email: EmailAddress, *, at: datetime) -> User | None:
        """Update the address; waits for a concurrent account of the same address to commit."""
        try:
            async with self._session.begin_nested():
                await self._set(user_id, email=email.written, canonical_email=email.canonical, email_verified=True)
                await self._refuse_restorable(user_id, email, at=at)
        except IntegrityError as error:
            raise EmailTaken from error
        return await self.get(user_id)

    async def _refuse_restorable(self, user_id: UUID, email: EmailAddress, *, at: datetime) -> None:
        """Raise `EmailTaken` if the address can be restored to another account.

        Checked after the row has the address: from then on no concurrent change of address can be confirmed unseen.
        """
        if await self._email_changes.is_restorable(email.canonical, at=at, to_other_than=user_id):
            raise EmailTaken

    async def set_name(self, user_id: UUID, name: str | None) -> User | None:
        """Update the name."""
        await self._set(user_id, name=name)
        return await self.get(user_id)

    async def set_roles(self, user_id: UUID, roles: tuple[str, ...]) -> None:
        """Update the roles."""
        await self._set(user_id, roles=roles)

    async def set_status(self, user_id: UUID, status: UserStatus, *, erase_at: datetime | None = None) -> None:
        """Update the status and the time of the erasure."""
        await self._set(user_id, status=status.value, erase_at=erase_at)

    async def lock_administrators(self) -> None:
        """Take an advisory lock, because a new administrator has no row to lock yet."""
        key = func.hashtextextended("administrators", 0)
        await self._session.execute(select(func.pg_advisory_xact_lock(key)))

    async def has_other_administrator(self, user_id: UUID) -> bool:
        """Select one active administrator."""
        others = select(UserRow.id).where(
            UserRow.id != user_id, UserRow.roles.contains([ADMIN]), UserRow.status == UserStatus.ACTIVE.value
        )
        return await self._session.scalar(others.limit(1)) is not None

    async def any_has_role(self, role: str) -> bool:
        """Select one account with the role."""
        return await self._session.scalar(select(UserRow.id).where(UserRow.roles.contains([role])).limit(1)) is not None

    async def due_for_erasure(self, *, at: datetime, limit: int) -> Sequence[UUID]:
        """Select accounts that are being deleted, the first due ones first."""
        due = select(UserRow.id).where(UserRow.status == UserStatus.DELETING.value, UserRow.erase_at <= at)
        return list(await self._session.scalars(due.order_by(UserRow.erase_at).limit(limit)))

    async def erase(self, user_id: UUID) -> None:
        """Delete a row; the database deletes those that refer to it."""
        await self._session.execute(delete(UserRow).where(UserRow.id == user_id))

    async def page(self, request: PageRequest, wanted: UserFilter) -> Page[User]:
        """Select accounts in the order of their ids, which grow with time."""
        query = select(UserRow).order_by(UserRow.id.desc()).limit(request.rows)
        if request.after is not None:
            query = query.where(UserRow.id < request.after)
        if wanted.status is not None:
            query = query.where(UserRow.status == wanted.status.value)
        if wanted.role is not None:
            query = query.where(UserRow.roles.contains([wanted.role]))
        if wanted.text is not None:
            address = UserRow.canonical_email.startswith(wanted.text.casefold(), autoescape=True)
            # The domain of the canonical address is in ASCII (IDNA).
            address |= UserRow.email.istartswith(wanted.text, autoescape=True)
            query = query.where(address | UserRow.name.icontains(wanted.text, autoescape=True))
        rows = await self._session.scalars(query.execution_options(populate_existing=True))
        return Page.of([user_of(row) for row in rows], request, attrgetter("id"))

    async def _set(self, user_id: UUID, **values: Any) -> None:  # noqa: ANN401 -- columns of any type
        await self._session.execute(
            update(UserRow).where(UserRow.id == user_id).values(**values).execution_options(synchronize_session=False)
        )

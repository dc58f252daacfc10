"""The repositories on PostgreSQL; what must win a race is one statement."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Update, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tequipy_auth.domain.entities import (
    OneTimeToken,
    RefreshToken,
    Registration,
    Session,
    User,
)
from tequipy_auth.domain.exceptions import EmailTaken
from tequipy_auth.domain.repositories import (
    AuthUnitOfWork,
    OneTimeTokens,
    RefreshTokens,
    Registrations,
    Sessions,
    Users,
)
from tequipy_auth.domain.value_objects import PasswordHash, Purpose
from tequipy_auth.infrastructure.attempts import SqlLoginAttempts
from tequipy_auth.infrastructure.audit import SqlAuditTrail
from tequipy_auth.infrastructure.mapping import (
    password_columns,
    refresh_token_of,
    registration_of,
    session_of,
    user_of,
)
from tequipy_auth.infrastructure.models import (
    OneTimeTokenRow,
    RefreshTokenRow,
    RegistrationRow,
    SessionRow,
    UserRow,
)
from tequipy_auth.infrastructure.signing_keys import SqlSigningKeys
from tequipy_platform.infrastructure.database import SqlUnitOfWork

R = TypeVar("R")
Temporary = RegistrationRow | SessionRow | OneTimeTokenRow


class SqlAuthUnitOfWork(SqlUnitOfWork, AuthUnitOfWork):
    """One transaction of PostgreSQL over everything that auth keeps."""

    def _bind(self, session: AsyncSession) -> None:
        self.registrations = SqlRegistrations(session)
        self.users = SqlUsers(session)
        self.sessions = SqlSessions(session)
        self.refresh_tokens = SqlRefreshTokens(session)
        self.one_time_tokens = SqlOneTimeTokens(session)
        self.attempts = SqlLoginAttempts(session)
        self.audit = SqlAuditTrail(session, self._clock, self._ids)
        self.signing_keys = SqlSigningKeys(session)


class _Repository:
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


class SqlRegistrations(_Repository, Registrations):
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

    async def newest_of(self, canonical_email: str, *, at: datetime) -> Registration | None:
        """Select the latest registration of an address."""
        row = await self._one(
            select(RegistrationRow)
            .where(RegistrationRow.canonical_email == canonical_email, RegistrationRow.expires_at > at)
            .order_by(RegistrationRow.created_at.desc(), RegistrationRow.id.desc())
            .limit(1)
        )
        return registration_of(row) if row else None

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired registrations."""
        return await self._purge(RegistrationRow, RegistrationRow.expires_at <= before, limit)

    async def delete_for(self, canonical_email: str) -> None:
        """Delete all registrations of an address."""
        await self._session.execute(delete(RegistrationRow).where(RegistrationRow.canonical_email == canonical_email))


class SqlUsers(_Repository, Users):
    """Rows of `auth.users`."""

    async def add(self, user: User) -> None:
        """Insert an account; waits for a concurrent one of the same address to commit, then raises `EmailTaken`."""
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
                created_at=user.created_at,
                **password_columns(user.password),
            )
            # No error of the database, so the transaction lives on.
            .on_conflict_do_nothing(index_elements=[UserRow.canonical_email])
            .returning(UserRow.id)
        )
        if added is None:
            raise EmailTaken

    async def get(self, user_id: UUID) -> User | None:
        """Select an account."""
        row = await self._one(select(UserRow).where(UserRow.id == user_id))
        return user_of(row) if row else None

    async def by_email(self, canonical_email: str) -> User | None:
        """Select the account of an address."""
        row = await self._one(select(UserRow).where(UserRow.canonical_email == canonical_email))
        return user_of(row) if row else None

    async def supersede(self, user_id: UUID, *, at: datetime) -> int | None:
        """Update an account's version."""
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
        """Select an account for update, of everything but its id: new sessions of it need not wait."""
        row = await self._one(select(UserRow).where(UserRow.id == user_id).with_for_update(key_share=True))
        return user_of(row) if row else None

    async def set_password(self, user_id: UUID, password: PasswordHash) -> None:
        """Update the columns of the password."""
        await self._change(user_id, **password_columns(password))

    async def set_verified(self, user_id: UUID) -> None:
        """Update whether the address is verified."""
        await self._change(user_id, email_verified=True)

    async def set_name(self, user_id: UUID, name: str | None) -> User | None:
        """Update the name."""
        await self._change(user_id, name=name)
        return await self.get(user_id)

    async def _change(self, user_id: UUID, **values: Any) -> None:  # noqa: ANN401 -- columns of any type
        await self._session.execute(
            update(UserRow).where(UserRow.id == user_id).values(**values).execution_options(synchronize_session=False)
        )


class SqlSessions(_Repository, Sessions):
    """Rows of `auth.sessions`."""

    async def add(self, session: Session) -> None:
        """Insert a session."""
        await self._session.execute(
            insert(SessionRow).values(
                id=session.id,
                user_id=session.user_id,
                ip=session.client.ip,
                user_agent=session.client.user_agent,
                amr=session.amr,
                auth_time=session.auth_time,
                created_at=session.created_at,
                last_used_at=session.last_used_at,
                idle_expires_at=session.idle_expires_at,
                absolute_expires_at=session.absolute_expires_at,
                revoked_at=session.revoked_at,
            )
        )

    async def get(self, session_id: UUID) -> Session | None:
        """Select a session."""
        row = await self._one(select(SessionRow).where(SessionRow.id == session_id))
        return session_of(row) if row else None

    async def touch(self, session_id: UUID, *, last_used_at: datetime, idle_expires_at: datetime) -> bool:
        """Update a session that has not been revoked."""
        return await self._changes(
            update(SessionRow)
            .where(SessionRow.id == session_id, SessionRow.revoked_at.is_(None))
            .values(last_used_at=last_used_at, idle_expires_at=idle_expires_at)
            .returning(SessionRow.id)
        )

    async def reauthenticate(self, session_id: UUID, *, at: datetime) -> bool:
        """Update when the owner of a session that has not been revoked was last seen to be the owner."""
        return await self._changes(
            update(SessionRow)
            .where(SessionRow.id == session_id, SessionRow.revoked_at.is_(None))
            .values(auth_time=at)
            .returning(SessionRow.id)
        )

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete ended sessions; their refresh tokens go with them."""
        ended_at = func.least(SessionRow.revoked_at, SessionRow.idle_expires_at, SessionRow.absolute_expires_at)
        return await self._purge(SessionRow, ended_at <= before, limit)

    async def revoke(self, session_id: UUID, *, at: datetime, reason: str) -> bool:
        """Update a session that has not been revoked; of concurrent reasons the first stays."""
        return await self._changes(
            update(SessionRow)
            .where(SessionRow.id == session_id, SessionRow.revoked_at.is_(None))
            .values(revoked_at=at, revoked_reason=reason)
            .returning(SessionRow.id)
        )

    async def revoke_all(self, user_id: UUID, *, keep: UUID | None = None, at: datetime, reason: str) -> Sequence[UUID]:
        """Update all sessions of an account but one, in one statement."""
        ended = await self._session.scalars(
            update(SessionRow)
            .where(SessionRow.user_id == user_id, SessionRow.revoked_at.is_(None), SessionRow.id.is_distinct_from(keep))
            .values(revoked_at=at, revoked_reason=reason)
            .returning(SessionRow.id)
            .execution_options(synchronize_session=False)
        )
        return list(ended)

    async def live_of(self, user_id: UUID, *, at: datetime, beyond: int = 0) -> Sequence[Session]:
        """Select the live sessions of an account."""
        rows = await self._session.scalars(
            select(SessionRow)
            .where(
                SessionRow.user_id == user_id,
                SessionRow.revoked_at.is_(None),
                SessionRow.idle_expires_at > at,
                SessionRow.absolute_expires_at > at,
            )
            .order_by(SessionRow.created_at.desc(), SessionRow.id.desc())
            .offset(beyond)
            .execution_options(populate_existing=True)
        )
        return [session_of(row) for row in rows]

    async def revoked_since(self, at: datetime) -> Mapping[UUID, datetime]:
        """Select what the index of revoked sessions has after that moment."""
        rows = await self._session.execute(
            select(SessionRow.id, SessionRow.revoked_at).where(SessionRow.revoked_at > at)
        )
        return {session_id: revoked_at for session_id, revoked_at in rows if revoked_at is not None}


class SqlRefreshTokens(_Repository, RefreshTokens):
    """Rows of `auth.refresh_tokens`."""

    async def add(self, token: RefreshToken) -> None:
        """Insert a token."""
        await self._session.execute(
            insert(RefreshTokenRow).values(
                id=token.id,
                session_id=token.session_id,
                parent_id=token.parent_id,
                secret_hash=token.secret_hash,
                key_version=token.key_version,
                created_at=token.created_at,
                used_at=token.used_at,
            )
        )

    async def get(self, token_id: UUID) -> RefreshToken | None:
        """Select a token."""
        row = await self._one(select(RefreshTokenRow).where(RefreshTokenRow.id == token_id))
        return refresh_token_of(row) if row else None

    async def child_of(self, token_id: UUID) -> RefreshToken | None:
        """Select the token that names this one as its parent."""
        row = await self._one(select(RefreshTokenRow).where(RefreshTokenRow.parent_id == token_id))
        return refresh_token_of(row) if row else None

    async def claim(self, token_id: UUID, *, at: datetime) -> bool:
        """Update a token that is unused; waits for a concurrent claim to commit (then False) or to roll back."""
        return await self._changes(
            update(RefreshTokenRow)
            .where(RefreshTokenRow.id == token_id, RefreshTokenRow.used_at.is_(None))
            .values(used_at=at)
            .returning(RefreshTokenRow.id)
        )


class SqlOneTimeTokens(_Repository, OneTimeTokens):
    """Rows of `auth.one_time_tokens`."""

    async def add(self, token: OneTimeToken, *, keep: int) -> None:
        """Insert a token and delete what it pushes out."""
        siblings = (
            OneTimeTokenRow.subject_id == token.subject_id,
            OneTimeTokenRow.purpose == token.purpose.value,
        )
        # One at a time for each subject: two that do not see each other would both stay.
        await self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(str(token.subject_id), 0))))
        await self._session.execute(
            insert(OneTimeTokenRow).values(
                id=token.id,
                purpose=token.purpose.value,
                subject_id=token.subject_id,
                secret_hash=token.secret_hash,
                created_at=token.created_at,
                expires_at=token.expires_at,
            )
        )
        newest = (
            select(OneTimeTokenRow.id)
            .where(*siblings)
            .order_by(OneTimeTokenRow.created_at.desc(), OneTimeTokenRow.id.desc())
            .limit(keep)
        )
        await self._session.execute(delete(OneTimeTokenRow).where(*siblings, OneTimeTokenRow.id.not_in(newest)))

    async def peek(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Select the subject of a token that is good."""
        query = select(OneTimeTokenRow.subject_id).where(
            OneTimeTokenRow.id == token_id,
            OneTimeTokenRow.purpose == purpose.value,
            OneTimeTokenRow.secret_hash == secret_hash,
            OneTimeTokenRow.expires_at > at,
            OneTimeTokenRow.used_at.is_(None),
        )
        return await self._session.scalar(query)

    async def discard(self, subject_id: UUID, purpose: Purpose) -> None:
        """Delete the tokens of a subject."""
        await self._session.execute(
            delete(OneTimeTokenRow).where(
                OneTimeTokenRow.subject_id == subject_id, OneTimeTokenRow.purpose == purpose.value
            )
        )

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired tokens, used or not."""
        return await self._purge(OneTimeTokenRow, OneTimeTokenRow.expires_at <= before, limit)

    async def consume(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Update the token and its siblings in one statement, so that of two at once only one is good."""
        shown = aliased(OneTimeTokenRow)
        family = select(shown.subject_id, shown.purpose).where(
            shown.id == token_id,
            shown.purpose == purpose.value,
            shown.secret_hash == secret_hash,
            shown.expires_at > at,
            shown.used_at.is_(None),
        )
        used = await self._session.execute(
            update(OneTimeTokenRow)
            # `used_at` is looked at again, after the wait for a concurrent use to commit.
            .where(
                tuple_(OneTimeTokenRow.subject_id, OneTimeTokenRow.purpose).in_(family),
                OneTimeTokenRow.used_at.is_(None),
            )
            .values(used_at=at)
            .returning(OneTimeTokenRow.id, OneTimeTokenRow.subject_id)
            .execution_options(synchronize_session=False)
        )
        return next((row.subject_id for row in used if row.id == token_id), None)

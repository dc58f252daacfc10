"""Sessions and refresh tokens on PostgreSQL; operations with races are single statements."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.entities import RefreshToken, Session
from tequipy_auth.domain.repositories import RefreshTokens, Sessions
from tequipy_auth.domain.value_objects import Client
from tequipy_auth.infrastructure.mapping import refresh_token_of, session_of
from tequipy_auth.infrastructure.models import RefreshTokenRow, SessionRow
from tequipy_auth.infrastructure.repositories.base import Repository


class SqlSessions(Repository, Sessions):
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

    async def touch(
        self, session_id: UUID, *, last_used_at: datetime, idle_expires_at: datetime, client: Client
    ) -> bool:
        """Update a session that has not been revoked."""
        return await self._update(
            update(SessionRow)
            .where(SessionRow.id == session_id, SessionRow.revoked_at.is_(None))
            .values(
                last_used_at=last_used_at,
                idle_expires_at=idle_expires_at,
                last_ip=client.ip,
                last_user_agent=client.user_agent,
            )
            .returning(SessionRow.id)
        )

    async def replace(self, session_id: UUID, *, by: UUID, at: datetime) -> bool:
        """Update a session that has not been revoked."""
        return await self._update(
            update(SessionRow)
            .where(SessionRow.id == session_id, SessionRow.revoked_at.is_(None))
            .values(revoked_at=at, revoked_reason="replaced", replaced_by=by)
            .returning(SessionRow.id)
        )

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete ended sessions; the database deletes their refresh tokens too."""
        ended_at = func.least(SessionRow.revoked_at, SessionRow.idle_expires_at, SessionRow.absolute_expires_at)
        return await self._purge(SessionRow, ended_at <= before, limit)

    async def revoke(self, session_id: UUID, *, at: datetime, reason: str) -> bool:
        """Revoke a session that has not been revoked; the first reason is kept."""
        return await self._update(
            update(SessionRow)
            .where(SessionRow.id == session_id, SessionRow.revoked_at.is_(None))
            .values(revoked_at=at, revoked_reason=reason)
            .returning(SessionRow.id)
        )

    async def revoke_all(self, user_id: UUID, *, keep: UUID | None = None, at: datetime, reason: str) -> Sequence[UUID]:
        """Revoke all sessions of an account except one, in one statement."""
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

    async def all_of(self, user_id: UUID) -> Sequence[Session]:
        """Select the sessions of an account."""
        rows = await self._session.scalars(
            select(SessionRow)
            .where(SessionRow.user_id == user_id)
            .order_by(SessionRow.created_at.desc(), SessionRow.id.desc())
            .execution_options(populate_existing=True)
        )
        return [session_of(row) for row in rows]

    async def revoked_since(self, at: datetime) -> Mapping[UUID, datetime]:
        """Select the sessions that were revoked after that time."""
        rows = await self._session.execute(
            select(SessionRow.id, SessionRow.revoked_at).where(SessionRow.revoked_at > at)
        )
        return {session_id: revoked_at for session_id, revoked_at in rows if revoked_at is not None}


class SqlRefreshTokens(Repository, RefreshTokens):
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
        """Select the token whose parent is this one."""
        row = await self._one(select(RefreshTokenRow).where(RefreshTokenRow.parent_id == token_id))
        return refresh_token_of(row) if row else None

    async def claim(self, token_id: UUID, *, at: datetime) -> bool:
        """Mark an unused token as used; waits for a concurrent call, and returns False if that one commits."""
        return await self._update(
            update(RefreshTokenRow)
            .where(RefreshTokenRow.id == token_id, RefreshTokenRow.used_at.is_(None))
            .values(used_at=at)
            .returning(RefreshTokenRow.id)
        )

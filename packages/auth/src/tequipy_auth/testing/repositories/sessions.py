"""Sessions and refresh tokens in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.entities import RefreshToken, Session, User
from tequipy_auth.domain.repositories import RefreshTokens, RotationOutcome, Sessions
from tequipy_auth.domain.value_objects import Client
from tequipy_auth.testing.repositories.accounts import MemoryUsers
from tequipy_auth.testing.repositories.purging import purge


class MemorySessions(Sessions):
    """Stores sessions by id, and the reasons of their revocations."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Session] = {}
        self.reasons: dict[UUID, str] = {}

    async def add(self, session: Session) -> None:
        """Store a session."""
        self.rows[session.id] = session

    async def get(self, session_id: UUID) -> Session | None:
        """Return a session."""
        return self.rows.get(session_id)

    async def replace(self, session_id: UUID, *, by: UUID, at: datetime) -> bool:
        """End a session that another one replaces."""
        if not await self.revoke(session_id, at=at, reason="replaced"):
            return False
        self.rows[session_id] = replace(self.rows[session_id], replaced_by=by)
        return True

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete ended sessions; their refresh tokens stay, but cannot be used."""
        return purge(self.rows, lambda row: min(row.revoked_at or row.expires_at, row.expires_at) <= before, limit)

    async def revoke(self, session_id: UUID, *, at: datetime, reason: str) -> bool:
        """Revoke the session."""
        row = self.rows.get(session_id)
        if row is None or row.revoked_at is not None:
            return False
        self.rows[session_id] = replace(row, revoked_at=at)
        self.reasons[session_id] = reason
        return True

    async def revoke_all(self, user_id: UUID, *, keep: UUID | None = None, at: datetime, reason: str) -> Sequence[UUID]:
        """Revoke all sessions of an account except one."""
        theirs = [row.id for row in self.rows.values() if row.user_id == user_id and row.id != keep]
        return [session_id for session_id in theirs if await self.revoke(session_id, at=at, reason=reason)]

    async def live_of(self, user_id: UUID, *, at: datetime) -> Sequence[Session]:
        """Return the live sessions of an account."""
        theirs = [row for row in self.rows.values() if row.user_id == user_id]
        live = [row for row in theirs if row.revoked_at is None and row.expires_at > at]
        return sorted(live, key=lambda row: (row.created_at, row.id), reverse=True)

    async def all_of(self, user_id: UUID) -> Sequence[Session]:
        """Return the sessions of an account."""
        theirs = [row for row in self.rows.values() if row.user_id == user_id]
        return sorted(theirs, key=lambda row: (row.created_at, row.id), reverse=True)

    async def revoked_since(self, at: datetime) -> Mapping[UUID, datetime]:
        """Return the sessions that were revoked after that time."""
        return {row.id: row.revoked_at for row in self.rows.values() if row.revoked_at and row.revoked_at > at}


class MemoryRefreshTokens(RefreshTokens):
    """Stores refresh tokens by id."""

    def __init__(self, sessions: MemorySessions, users: MemoryUsers) -> None:
        self.rows: dict[UUID, RefreshToken] = {}
        self._sessions = sessions
        self._users = users

    async def add(self, token: RefreshToken) -> None:
        """Store a token."""
        if token.parent_id is not None and await self.child_of(token.parent_id) is not None:
            raise ValueError("the parent has a child already")
        self.rows[token.id] = token

    async def start(self, session: Session, token: RefreshToken) -> int:
        """Store the session and its token, and the time of the login."""
        others = await self._sessions.live_of(session.user_id, at=session.auth_time)
        await self._sessions.add(session)
        await self.add(token)
        user = self._users.rows[session.user_id]
        self._users.rows[user.id] = replace(user, last_login_at=session.auth_time)
        return len(others)

    async def get(self, token_id: UUID) -> RefreshToken | None:
        """Return a token."""
        return self.rows.get(token_id)

    async def child_of(self, token_id: UUID) -> RefreshToken | None:
        """Return the successor of this token."""
        return next((row for row in self.rows.values() if row.parent_id == token_id), None)

    async def with_owner(self, token_id: UUID) -> tuple[RefreshToken, Session, User] | None:
        """Return a token with its session and account."""
        token = self.rows.get(token_id)
        session = self._sessions.rows.get(token.session_id) if token else None
        user = self._users.rows.get(session.user_id) if session else None
        return (token, session, user) if token and session and user else None

    async def rotate(
        self, child: RefreshToken, *, at: datetime, idle_expires_at: datetime, client: Client
    ) -> RotationOutcome:
        """Mark the parent as used, and store the child."""
        parent = self.rows.get(child.parent_id) if child.parent_id else None
        if parent is None or parent.used_at is not None:
            return RotationOutcome.USED
        self.rows[parent.id] = replace(parent, used_at=at)
        session = self._sessions.rows.get(parent.session_id)
        if session is None or session.revoked_at is not None:
            return RotationOutcome.REVOKED
        last = Client(client.ip, client.user_agent)
        self._sessions.rows[session.id] = replace(
            session,
            last_used_at=at,
            idle_expires_at=idle_expires_at,
            last_client=last if last != Client() else None,
        )
        await self.add(child)
        return RotationOutcome.ROTATED

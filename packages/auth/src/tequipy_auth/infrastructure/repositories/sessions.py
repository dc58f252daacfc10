"""Sessions and refresh tokens on PostgreSQL; operations with races are single statements."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Select, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert

from tequipy_auth.domain.entities import RefreshToken, Session, User
from tequipy_auth.domain.repositories import RefreshTokens, RotationOutcome, Sessions
from tequipy_auth.domain.value_objects import Client
from tequipy_auth.infrastructure.mapping import refresh_token_of, session_of, user_of
from tequipy_auth.infrastructure.models import RefreshTokenRow, SessionRow, UserRow
from tequipy_auth.infrastructure.repositories.base import Repository, table_of

# Built once, because building a statement and its cache key takes longer than running it.
_WITH_OWNER: Final = (
    select(RefreshTokenRow, SessionRow, UserRow)
    .join(SessionRow, SessionRow.id == RefreshTokenRow.session_id)
    .join(UserRow, UserRow.id == SessionRow.user_id)
    .where(RefreshTokenRow.id == bindparam("token_id"))
    .execution_options(populate_existing=True)
)


def _rotation() -> Select[tuple[int, int]]:
    """Return the statement of `SqlRefreshTokens.rotate`.

    The update of the token decides between concurrent calls. Those of the session and the child depend on its result,
    and the child also on that of the session, whose condition PostgreSQL checks on the row's latest version. No
    parameter has the name of a column, because SQLAlchemy would take it for a value of that column.
    """
    claimed = (
        update(RefreshTokenRow)
        .where(RefreshTokenRow.id == bindparam("parent_token"), RefreshTokenRow.used_at.is_(None))
        .values(used_at=bindparam("moment"))
        .returning(RefreshTokenRow.session_id)
        .cte("claimed")
    )
    touched = (
        update(SessionRow)
        .where(SessionRow.id == claimed.c.session_id, SessionRow.revoked_at.is_(None))
        .values(
            last_used_at=bindparam("moment"),
            idle_expires_at=bindparam("idle_until"),
            last_ip=bindparam("client_ip"),
            last_user_agent=bindparam("client_agent"),
        )
        .returning(SessionRow.id)
        .cte("touched")
    )
    columns = {
        "id": bindparam("child_token", type_=RefreshTokenRow.id.type),
        "session_id": touched.c.id,
        "parent_id": bindparam("parent_token", type_=RefreshTokenRow.id.type),
        "secret_hash": bindparam("child_hash", type_=RefreshTokenRow.secret_hash.type),
        "key_version": bindparam("child_key", type_=RefreshTokenRow.key_version.type),
        "created_at": bindparam("child_created", type_=RefreshTokenRow.created_at.type),
    }
    added = (
        insert(RefreshTokenRow)
        .from_select(list(columns), select(*columns.values()))
        .returning(RefreshTokenRow.id)
        .cte("added")
    )
    return select(
        select(func.count()).select_from(claimed).scalar_subquery().label("claimed"),
        select(func.count()).select_from(added).scalar_subquery().label("added"),
    )


_ROTATE: Final = _rotation()


_SESSIONS: Final = table_of(SessionRow)
_TOKENS: Final = table_of(RefreshTokenRow)
_USERS: Final = table_of(UserRow)


def _start() -> ReturningInsert[int]:
    """Return the statement of `SqlRefreshTokens.start`."""
    live = _SESSIONS.alias("live")
    moment = bindparam("started_at", type_=_SESSIONS.c.auth_time.type)
    # The statement sees the table as it was before it, so that the new session does not count.
    others = (
        select(func.count())
        .select_from(live)
        .where(
            live.c.user_id == bindparam("owner"),
            live.c.revoked_at.is_(None),
            live.c.idle_expires_at > moment,
            live.c.absolute_expires_at > moment,
        )
    )
    session = insert(_SESSIONS).values(
        id=bindparam("session"),
        user_id=bindparam("owner"),
        ip=bindparam("client_ip"),
        user_agent=bindparam("client_agent"),
        amr=bindparam("methods"),
        auth_time=moment,
        created_at=bindparam("first_created_at"),
        last_used_at=moment,
        idle_expires_at=bindparam("idle_until"),
        absolute_expires_at=bindparam("absolute_until"),
    )
    login = update(_USERS).where(_USERS.c.id == bindparam("owner")).values(last_login_at=moment)
    token = insert(_TOKENS).values(
        id=bindparam("token"),
        session_id=bindparam("session"),
        secret_hash=bindparam("hashed"),
        key_version=bindparam("key"),
        created_at=bindparam("token_created_at"),
    )
    return token.returning(others.scalar_subquery()).add_cte(session.cte("session"), login.cte("login"))


_START: Final = _start()


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

    async def live_of(self, user_id: UUID, *, at: datetime) -> Sequence[Session]:
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

    async def start(self, session: Session, token: RefreshToken) -> int:
        """Insert both and update the account in one statement."""
        started = await self._session.execute(
            _START,
            {
                "session": session.id,
                "owner": session.user_id,
                "client_ip": session.client.ip,
                "client_agent": session.client.user_agent,
                "methods": session.amr,
                "started_at": session.auth_time,
                "first_created_at": session.created_at,
                "idle_until": session.idle_expires_at,
                "absolute_until": session.absolute_expires_at,
                "token": token.id,
                "hashed": token.secret_hash,
                "key": token.key_version,
                "token_created_at": token.created_at,
            },
        )
        return started.scalar_one()

    async def get(self, token_id: UUID) -> RefreshToken | None:
        """Select a token."""
        row = await self._one(select(RefreshTokenRow).where(RefreshTokenRow.id == token_id))
        return refresh_token_of(row) if row else None

    async def child_of(self, token_id: UUID) -> RefreshToken | None:
        """Select the token whose parent is this one."""
        row = await self._one(select(RefreshTokenRow).where(RefreshTokenRow.parent_id == token_id))
        return refresh_token_of(row) if row else None

    async def with_owner(self, token_id: UUID) -> tuple[RefreshToken, Session, User] | None:
        """Select a token, its session and its account in one statement."""
        row = (await self._session.execute(_WITH_OWNER, {"token_id": token_id})).one_or_none()
        if row is None:
            return None
        token, session, user = row
        return refresh_token_of(token), session_of(session), user_of(user)

    async def rotate(
        self, child: RefreshToken, *, at: datetime, idle_expires_at: datetime, client: Client
    ) -> RotationOutcome:
        """Change the three rows in one statement."""
        changed = await self._session.execute(
            _ROTATE,
            {
                "parent_token": child.parent_id,
                "moment": at,
                "idle_until": idle_expires_at,
                "client_ip": client.ip,
                "client_agent": client.user_agent,
                "child_token": child.id,
                "child_hash": child.secret_hash,
                "child_key": child.key_version,
                "child_created": child.created_at,
            },
        )
        row = changed.one()
        if not row.claimed:
            return RotationOutcome.USED
        return RotationOutcome.ROTATED if row.added else RotationOutcome.REVOKED

"""Sessions and their tokens: start, revocation, and the tokens that the client gets."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.entities import RefreshToken, Session, User
from tequipy_auth.domain.exceptions import InvalidAccessToken
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AccessTokens, Revocations, SecretHasher, SuccessorKeys
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.revocations import revoked_session, superseded_version
from tequipy_auth.domain.task_names import PUBLISH_REVOCATIONS
from tequipy_auth.domain.value_objects import (
    SECRET_BYTES,
    AccessToken,
    Client,
    Principal,
    RefreshTokenValue,
    TokenPair,
)
from tequipy_platform import Clock, Delivery, IdSource, RandomSource


@dataclass(frozen=True, slots=True)
class NewSession:
    """A new session and its first refresh token, not stored yet."""

    session: Session
    refresh_token: RefreshToken
    """The row of the first refresh token, which contains only a hash of its secret."""
    refresh_token_value: RefreshTokenValue = field(repr=False)
    """The first refresh token, which the client receives."""
    replaces: UUID | None = None
    """The session that ends when this one begins."""


@dataclass(frozen=True, slots=True)
class SessionRevocation:
    """The reason, the time and the author of a session revocation."""

    reason: str
    at: datetime
    action: AuditAction = AuditAction.SESSION_REVOKED
    actor_id: UUID | None = None
    client: Client = field(default_factory=Client)


async def find_caller(work: AuthUnitOfWork, principal: Principal, *, at: datetime) -> tuple[User, Session]:
    """Return the caller's account and session; raises `InvalidAccessToken` if the session was revoked or has expired.

    An access token may outlive its session's expiry, but must not prolong the session.
    """
    user = await work.users.get(principal.user_id)
    session = await work.sessions.get(principal.session_id)
    if user is None or session is None or session.revoked_at is not None or session.expires_at <= at:
        raise InvalidAccessToken
    return user, session


class SessionIssuer:
    """Starts and revokes sessions within the caller's unit of work, and signs their access tokens.

    Revoked ids are published twice: by `publish` right after the commit, so that they arrive within milliseconds, and
    by a task from the outbox of the same transaction, so that they arrive even if the process dies. Both are
    idempotent.
    """

    def __init__(
        self,
        *,
        access_tokens: AccessTokens,
        revocations: Revocations,
        secrets: SecretHasher,
        successor_keys: SuccessorKeys,
        policy: AuthPolicy,
        clock: Clock,
        new_id: IdSource,
        random: RandomSource,
    ) -> None:
        self._access_tokens = access_tokens
        self._revocations = revocations
        self._secrets = secrets
        self._successor_keys = successor_keys
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._random = random

    async def check_signing_key(self) -> None:
        """Raise `Unavailable` unless this process can sign tokens."""
        await self._access_tokens.check()

    async def prepare(
        self, user: User, client: Client, *, amr: tuple[str, ...], replaces: Session | None = None
    ) -> NewSession:
        """Create a session and hash the secret of its first refresh token; nothing is stored yet.

        A session that `replaces` another one has a new authentication time, but inherits the time of its creation and
        its absolute expiry.
        """
        value = RefreshTokenValue.new(self._new_id(), self._random(SECRET_BYTES))
        secret_hash = await self._secrets.hash(value.secret)
        now = self._clock.now()
        session = Session(
            id=self._new_id(),
            user_id=user.id,
            client=client,
            amr=amr,
            auth_time=now,
            created_at=replaces.created_at if replaces else now,
            last_used_at=now,
            idle_expires_at=now + self._policy.refresh_idle,
            absolute_expires_at=replaces.absolute_expires_at if replaces else now + self._policy.refresh_absolute,
        )
        token = RefreshToken(value.id, session.id, None, secret_hash, self._successor_keys.current_version, now)
        return NewSession(session, token, value, replaces.id if replaces else None)

    async def save(self, work: AuthUnitOfWork, new: NewSession) -> tuple[str, ...]:
        """Store the session in the caller's transaction, which holds the lock of the user's row.

        The session that it replaces ends; raises `InvalidAccessToken` if that has ended already. If the account has the
        maximum number of sessions, the oldest are revoked. Returns the revoked ids to `publish` after the commit.
        """
        session = new.session
        replaced: tuple[str, ...] = ()
        if new.replaces is not None:
            if not await work.sessions.replace(new.replaces, by=session.id, at=session.auth_time):
                raise InvalidAccessToken
            replaced = (revoked_session(new.replaces),)
            work.outbox.add(PUBLISH_REVOCATIONS, members=list(replaced))
        others = await work.refresh_tokens.start(session, new.refresh_token)
        if others < self._policy.sessions_per_user:
            return replaced
        return replaced + await self._revoke_oldest(work, session)

    async def _revoke_oldest(self, work: AuthUnitOfWork, new: Session) -> tuple[str, ...]:
        """Revoke the oldest sessions beyond the maximum number, but never the new one."""
        live = await work.sessions.live_of(new.user_id, at=new.auth_time)
        others = [each.id for each in live if each.id != new.id]
        revocation = SessionRevocation("too_many_sessions", new.auth_time, actor_id=new.user_id, client=new.client)
        return await self.revoke(work, new.user_id, others[self._policy.sessions_per_user - 1 :], revocation)

    async def revoke(
        self, work: AuthUnitOfWork, user_id: UUID, session_ids: Iterable[UUID], revocation: SessionRevocation
    ) -> tuple[str, ...]:
        """Revoke these sessions of an account; return the revoked ids to `publish` after the commit."""
        ended = [
            each
            for each in sorted(session_ids)
            if await work.sessions.revoke(each, at=revocation.at, reason=revocation.reason)
        ]
        return self._record(work, user_id, ended, revocation)

    async def revoke_latest(
        self, work: AuthUnitOfWork, user_id: UUID, session_id: UUID, revocation: SessionRevocation
    ) -> tuple[str, ...]:
        """Revoke a session or, if it was replaced, the one that has replaced it; return the ids to `publish`."""
        latest: UUID | None = session_id
        revoked_ids: tuple[str, ...] = ()
        while latest is not None and not revoked_ids:
            revoked_ids = await self.revoke(work, user_id, [latest], revocation)
            session = await work.sessions.get(latest)
            latest = session.replaced_by if session else None
        return revoked_ids

    async def revoke_all(
        self, work: AuthUnitOfWork, user_id: UUID, revocation: SessionRevocation, *, keep: UUID | None = None
    ) -> tuple[str, ...]:
        """Revoke all sessions of an account except `keep`; return the revoked ids to `publish` after the commit."""
        ended = await work.sessions.revoke_all(user_id, keep=keep, at=revocation.at, reason=revocation.reason)
        return self._record(work, user_id, ended, revocation)

    async def supersede(self, work: AuthUnitOfWork, user_id: UUID) -> tuple[str, ...]:
        """Make the account's access tokens outdated, because its roles have changed; its sessions continue.

        Returns the revoked ids to `publish` after the commit.
        """
        previous = await work.users.supersede(user_id, at=self._clock.now())
        if previous is None:
            return ()
        revoked_ids = (superseded_version(user_id, previous),)
        work.outbox.add(PUBLISH_REVOCATIONS, members=list(revoked_ids))
        return revoked_ids

    async def publish(self, revoked_ids: Iterable[str]) -> None:
        """Publish the ids that `save`, `revoke` or `revoke_all` returned to every process."""
        await self._revocations.add(*revoked_ids)

    async def publish_revocations(self, _delivery: Delivery, *, members: list[str]) -> None:
        """Run the task `auth.publish_revocations`: publish revoked ids once more, in case the first time failed."""
        await self.publish(members)

    async def access_token(self, user: User, session: Session) -> AccessToken:
        """Return an access token for the session."""
        return await self._access_tokens.issue(
            Principal(
                user_id=user.id,
                session_id=session.id,
                roles=user.roles,
                version=user.version,
                auth_time=session.auth_time,
                amr=session.amr,
            )
        )

    def token_pair(self, access: AccessToken, session: Session, refresh: RefreshTokenValue, now: datetime) -> TokenPair:
        """Return a token pair; the refresh token expires when the session would expire without a further refresh."""
        idle_end = min(now + self._policy.refresh_idle, session.absolute_expires_at)
        return TokenPair(access, refresh, refresh_expires_in=int((idle_end - now).total_seconds()))

    def _record(
        self, work: AuthUnitOfWork, user_id: UUID, ended: Iterable[UUID], revocation: SessionRevocation
    ) -> tuple[str, ...]:
        revoked_ids = []
        for session_id in ended:
            revoked_ids.append(revoked_session(session_id))
            work.audit.record(
                AuditEvent(
                    revocation.action,
                    reason=revocation.reason,
                    actor_id=revocation.actor_id,
                    subject_id=user_id,
                    session_id=session_id,
                    client=revocation.client,
                )
            )
        if revoked_ids:
            work.outbox.add(PUBLISH_REVOCATIONS, members=list(revoked_ids))
        return tuple(revoked_ids)

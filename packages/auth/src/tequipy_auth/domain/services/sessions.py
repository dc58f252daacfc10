"""Refreshing, listing and ending of sessions."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, Outcome
from tequipy_auth.domain.entities import RefreshToken, Session, User
from tequipy_auth.domain.exceptions import (
    InvalidAccessToken,
    RefreshExpired,
    RefreshInvalid,
    RefreshReused,
    RefreshSuperseded,
    SessionRevoked,
)
from tequipy_auth.domain.lockout import IPV6_PREFIX
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AccessTokens, SecretHasher, SuccessorKeys
from tequipy_auth.domain.repositories import AuthUnitOfWork, RotationOutcome
from tequipy_auth.domain.services.session_issuer import SessionIssuer, SessionRevocation
from tequipy_auth.domain.task_names import SEND_MAIL
from tequipy_auth.domain.value_objects import Client, Principal, RefreshTokenValue, TokenPair
from tequipy_platform import JSON, Clock, IdSource, NotFound, retry_conflicts


@dataclass(frozen=True, slots=True)
class _PresentedToken:
    """The presented refresh token with its row, session and user."""

    value: RefreshTokenValue
    token: RefreshToken
    session: Session
    user: User


class SessionService:
    """Manages sessions, each of which is a chain of rotating refresh tokens."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        single_read: Callable[[], AuthUnitOfWork],
        secrets: SecretHasher,
        successor_keys: SuccessorKeys,
        access_tokens: AccessTokens,
        issuer: SessionIssuer,
        policy: AuthPolicy,
        clock: Clock,
        new_id: IdSource,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._single_read = single_read
        self._secrets = secrets
        self._successor_keys = successor_keys
        self._access_tokens = access_tokens
        self._issuer = issuer
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._operations = operations

    @counted("refresh")
    @retry_conflicts
    async def refresh(self, token: str, *, client: Client) -> TokenPair:
        """Exchange a refresh token for a new token pair.

        Concurrent refreshes with the same token return the same successor. Within the grace period a used token returns
        its successor again, or raises `RefreshSuperseded` if the successor has been used. After the grace period a used
        token counts as stolen: the session is revoked and `RefreshReused` is raised. Also raises `RefreshInvalid`,
        `RefreshExpired` and `SessionRevoked`.
        """
        # The time of the request's arrival: a slow database must not make a refresh look like theft.
        now = self._clock.now()
        presented = await self._find_token(token)
        if presented.session.revoked_at is not None:
            await self._verify(presented)
            raise await self._refusal(presented, client, now)
        if presented.session.expires_at <= now:
            await self._verify(presented)
            raise RefreshExpired
        successor, child = await self._derive_successor(presented, now)
        # Signed before the commit: a revocation after the commit is then stored until this token has expired.
        access = await self._issuer.access_token(presented.user, presented.session)
        revoked_ids: tuple[str, ...] = ()
        try:
            async with self._unit_of_work() as work:
                if await self._rotate(work, presented, child, client, now):
                    outcome: RefreshTokenValue | Exception = successor
                else:
                    outcome = await self._resolve_used_token(work, presented, client, now)
                    if isinstance(outcome, RefreshReused):
                        revoked_ids = await self._revoke_stolen(work, presented, client, now)
        except SessionRevoked as error:  # ended since the token was verified; the claim is rolled back
            raise await self._refusal(presented, client, now) from error
        await self._issuer.publish(revoked_ids)
        # Raised after the commit, so that the revocation of a stolen session is stored.
        if isinstance(outcome, Exception):
            raise outcome
        return self._issuer.token_pair(access, presented.session, outcome, now)

    @counted("logout")
    @retry_conflicts
    async def logout(
        self, *, client: Client, refresh_token: str | None = None, access_token: str | None = None
    ) -> None:
        """Revoke the session of each valid credential, also of a used refresh token; ignore invalid ones.

        If the session was replaced, the one that has replaced it is revoked.
        """
        owners: dict[UUID, UUID] = {}
        if refresh_token is not None:
            with suppress(RefreshInvalid):
                presented = await self._find_token(refresh_token)
                await self._verify(presented)
                owners[presented.session.id] = presented.session.user_id
        if access_token is not None:
            with suppress(InvalidAccessToken):
                principal = await self._access_tokens.verify(access_token)
                owners[principal.session_id] = principal.user_id
        if not owners:
            return
        revoked_ids: tuple[str, ...] = ()
        async with self._unit_of_work() as work:
            for session_id, user_id in sorted(owners.items()):
                revocation = SessionRevocation("logout", self._clock.now(), AuditAction.LOGOUT, user_id, client)
                revoked_ids += await self._issuer.revoke_latest(work, user_id, session_id, revocation)
        await self._issuer.publish(revoked_ids)

    @counted("logout_all")
    async def logout_all(self, principal: Principal, *, client: Client) -> None:
        """Revoke every session of the caller."""
        await self._logout_all(principal, client, keep=None)

    @counted("logout_others")
    async def logout_others(self, principal: Principal, *, client: Client) -> None:
        """Revoke every session of the caller except the current one."""
        await self._logout_all(principal, client, keep=principal.session_id)

    async def sessions(self, principal: Principal) -> Sequence[Session]:
        """Return the caller's live sessions, the latest login first."""
        async with self._unit_of_work() as work:
            return await work.sessions.live_of(principal.user_id, at=self._clock.now())

    @counted("session_revoke")
    @retry_conflicts
    async def revoke(self, principal: Principal, session_id: UUID, *, client: Client) -> None:
        """Revoke one session of the caller; raises `NotFound` if it has ended or belongs to somebody else."""
        now = self._clock.now()
        async with self._unit_of_work() as work:
            session = await work.sessions.get(session_id)
            if session is None or session.user_id != principal.user_id or session.expires_at <= now:
                raise NotFound
            revocation = SessionRevocation("revoked_by_user", now, actor_id=principal.user_id, client=client)
            revoked_ids = await self._issuer.revoke(work, principal.user_id, [session_id], revocation)
            if not revoked_ids:
                raise NotFound
        await self._issuer.publish(revoked_ids)

    @retry_conflicts
    async def _logout_all(self, principal: Principal, client: Client, *, keep: UUID | None) -> None:
        revocation = SessionRevocation("logout", self._clock.now(), AuditAction.LOGOUT, principal.user_id, client)
        async with self._unit_of_work() as work:
            revoked_ids = await self._issuer.revoke_all(work, principal.user_id, revocation, keep=keep)
        await self._issuer.publish(revoked_ids)

    async def _find_token(self, token: str) -> _PresentedToken:
        """Return the presented token, whose secret is not verified yet; raises `RefreshInvalid` if it is unknown."""
        try:
            value = RefreshTokenValue.parse(token)
        except ValueError as error:
            raise RefreshInvalid from error
        async with self._single_read() as work:
            found = await work.refresh_tokens.with_owner(value.id)
        if found is None:
            raise RefreshInvalid
        return _PresentedToken(value, *found)

    async def _verify(self, presented: _PresentedToken) -> None:
        """Raise `RefreshInvalid` if the secret is wrong; hashes, so call it outside of a transaction."""
        if not await self._secrets.verify(presented.value.secret, presented.token.secret_hash):
            raise RefreshInvalid

    async def _derive_successor(
        self, presented: _PresentedToken, now: datetime
    ) -> tuple[RefreshTokenValue, RefreshToken]:
        """Return the successor of the presented token, and its row; raises `RefreshInvalid` if the secret is wrong.

        Both hashes are computed outside of a transaction, because they take a thread and about two milliseconds.
        """
        version = self._successor_keys.current_version
        key = self._successor_keys.key(version)
        if key is None:
            raise LookupError(f"no successor key of version {version}")
        successor = presented.value.successor(self._new_id(), key)
        secret_hash = await self._secrets.exchange(
            presented.value.secret, presented.token.secret_hash, successor=successor.secret
        )
        if secret_hash is None:
            raise RefreshInvalid
        return successor, RefreshToken(
            successor.id, presented.session.id, presented.value.id, secret_hash, version, now
        )

    async def _rotate(
        self, work: AuthUnitOfWork, presented: _PresentedToken, child: RefreshToken, client: Client, now: datetime
    ) -> bool:
        """Replace the presented token by its successor; return False if it has been used before."""
        outcome = await work.refresh_tokens.rotate(
            child, at=now, idle_expires_at=now + self._policy.refresh_idle, client=client
        )
        if outcome is RotationOutcome.USED:
            return False
        if outcome is RotationOutcome.REVOKED:
            raise SessionRevoked
        work.audit.record(
            AuditEvent(
                AuditAction.TOKEN_REFRESHED,
                actor_id=presented.user.id,
                subject_id=presented.user.id,
                session_id=presented.session.id,
                client=client,
            )
        )
        return True

    async def _resolve_used_token(
        self, work: AuthUnitOfWork, presented: _PresentedToken, client: Client, now: datetime
    ) -> RefreshTokenValue | Exception:
        """Handle a token that was used before: return its successor again, or the error to raise."""
        parent = await work.refresh_tokens.get(presented.value.id)
        child = await work.refresh_tokens.child_of(presented.value.id)
        session = await work.sessions.get(presented.session.id)
        # The rows may have been deleted since the token was verified.
        if parent is None or parent.used_at is None or child is None or session is None:
            return RefreshInvalid()
        if session.revoked_at is not None:  # ended since the token was verified
            raise SessionRevoked
        if now - parent.used_at > self._policy.refresh_grace:
            return RefreshReused()
        key = self._successor_keys.key(child.key_version)
        if child.used_at is not None or key is None:
            return RefreshSuperseded()
        self._record_replay(work, session, client)
        return presented.value.successor(child.id, key)

    async def _refusal(self, presented: _PresentedToken, client: Client, now: datetime) -> Exception:
        """Return the error for a token of a session that has ended.

        Within the grace period, a token of a replaced session is superseded: another tab has authenticated again, and
        the browser already holds the cookie of the new session. Later it is a copy, and its use is audited.
        """
        async with self._unit_of_work() as work:
            session = await work.sessions.get(presented.session.id)
            if session is None or session.revoked_at is None or session.replaced_by is None:
                return SessionRevoked()
            if now - session.revoked_at <= self._policy.refresh_grace:
                return RefreshSuperseded()
            work.audit.record(
                AuditEvent(
                    AuditAction.REFRESH_REPLAYED,
                    Outcome.FAILURE,
                    reason="replaced",
                    # The actor is unknown, because the token may have been copied.
                    subject_id=session.user_id,
                    session_id=session.id,
                    client=client,
                )
            )
        return SessionRevoked()

    def _record_replay(self, work: AuthUnitOfWork, session: Session, client: Client) -> None:
        """Audit a repeated use of a token from another client.

        The session's `last_client` is the client that used the token first.
        """
        first = session.last_client
        if first is None:
            return
        differences = {
            "client_address": client.network(IPV6_PREFIX) != first.network(IPV6_PREFIX),
            "user_agent": client.user_agent != first.user_agent,
        }
        changed: list[JSON] = [name for name, differs in differences.items() if differs]
        if changed:
            work.audit.record(
                AuditEvent(
                    AuditAction.REFRESH_REPLAYED,
                    # The actor is unknown: either the owner on another network, or somebody who copied the token.
                    subject_id=session.user_id,
                    session_id=session.id,
                    client=client,
                    metadata={"changed": changed},
                )
            )

    async def _revoke_stolen(
        self, work: AuthUnitOfWork, presented: _PresentedToken, client: Client, now: datetime
    ) -> tuple[str, ...]:
        """Revoke a session whose used refresh token was presented, and notify its owner (RFC 9700, section 4.14.2)."""
        work.audit.record(
            AuditEvent(
                AuditAction.REFRESH_REUSE_DETECTED,
                Outcome.FAILURE,
                reason="refresh_reused",
                # The actor is unknown, because the token may have been stolen.
                subject_id=presented.user.id,
                session_id=presented.session.id,
                client=client,
            )
        )
        work.outbox.add(SEND_MAIL, mail="session_stolen", subject_id=str(presented.user.id))
        return await self._issuer.revoke(
            work, presented.user.id, [presented.session.id], SessionRevocation("refresh_reused", now, client=client)
        )

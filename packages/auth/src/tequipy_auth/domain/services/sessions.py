"""Staying logged in, logging out."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from tequipy_auth.domain.entities import RefreshToken, Session, User
from tequipy_auth.domain.exceptions import (
    InvalidAccessToken,
    RefreshExpired,
    RefreshInvalid,
    RefreshReused,
    RefreshSuperseded,
    SessionRevoked,
)
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AccessTokens, SecretHasher, SuccessorKeys
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.token_issuer import TokenIssuer
from tequipy_auth.domain.value_objects import RefreshTokenValue, TokenPair
from tequipy_platform import Clock, IdSource


@dataclass(frozen=True, slots=True)
class _Link:
    """What a refresh needs to know of the token that was shown."""

    token: RefreshToken
    session: Session
    user: User


class SessionService:
    """Sessions as families of rotating refresh tokens."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        secrets: SecretHasher,
        successor_keys: SuccessorKeys,
        access_tokens: AccessTokens,
        issuer: TokenIssuer,
        policy: AuthPolicy,
        clock: Clock,
        new_id: IdSource,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._secrets = secrets
        self._successor_keys = successor_keys
        self._access_tokens = access_tokens
        self._issuer = issuer
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self.operations = operations

    @counted("refresh")
    async def refresh(self, token: str) -> TokenPair:
        """Rotate a refresh token.

        Tabs that refresh at once all get the very same successor. A used token whose successor is unused gives that
        successor again within the grace, and `RefreshSuperseded` once it is used; after the grace it means theft: the
        session ends and `RefreshReused` is raised. Raises `RefreshInvalid`, `RefreshExpired`, `SessionRevoked` too.
        """
        value, link = await self._prove(token)
        now = self._clock.now()
        if link.session.revoked_at is not None:
            raise SessionRevoked
        if link.session.expires_at <= now:
            raise RefreshExpired
        successor, child = await self._prepare(value, link, now)
        async with self._unit_of_work() as work:
            if await work.refresh_tokens.claim(value.id, at=now):
                await work.refresh_tokens.add(child)
                idle_expires_at = now + self._policy.refresh_idle
                if not await work.sessions.touch(link.session.id, last_used_at=now, idle_expires_at=idle_expires_at):
                    raise SessionRevoked
                outcome: RefreshTokenValue | Exception = successor
            else:
                outcome = await self._again(work, value, now)
        if isinstance(outcome, Exception):  # raised only now: the end of a stolen session must be committed
            raise outcome
        return await self._issuer.pair(link.user, link.session, outcome, now)

    @counted("logout")
    async def logout(self, *, refresh_token: str | None = None, access_token: str | None = None) -> None:
        """End the session of whichever credential is good, a used refresh token included; nothing else is an error."""
        ended = set()
        if refresh_token is not None:
            with suppress(RefreshInvalid):
                _, link = await self._prove(refresh_token)
                ended.add(link.session.id)
        if access_token is not None:
            with suppress(InvalidAccessToken):
                ended.add((await self._access_tokens.verify(access_token)).session_id)
        if ended:
            now = self._clock.now()
            async with self._unit_of_work() as work:
                for session_id in sorted(ended):
                    await work.sessions.revoke(session_id, at=now, reason="logout")

    async def _prove(self, token: str) -> tuple[RefreshTokenValue, _Link]:
        """Return the shown token and its row when its secret is right; raises `RefreshInvalid`."""
        try:
            value = RefreshTokenValue.parse(token)
        except ValueError as error:
            raise RefreshInvalid from error
        async with self._unit_of_work() as work:
            row = await work.refresh_tokens.get(value.id)
            session = await work.sessions.get(row.session_id) if row else None
            user = await work.users.get(session.user_id) if session else None
        # Hashing stays outside the transaction: it takes a thread and a millisecond.
        if (
            row is None
            or session is None
            or user is None
            or not await self._secrets.verify(value.secret, row.secret_hash)
        ):
            raise RefreshInvalid
        return value, _Link(row, session, user)

    async def _prepare(
        self, value: RefreshTokenValue, link: _Link, now: datetime
    ) -> tuple[RefreshTokenValue, RefreshToken]:
        """Derive and hash the successor before the transaction that may need it."""
        version = self._successor_keys.current_version
        key = self._successor_keys.key(version)
        if key is None:
            raise LookupError(f"no successor key of version {version}")
        successor = value.successor(self._new_id(), key)
        secret_hash = await self._secrets.hash(successor.secret)
        return successor, RefreshToken(successor.id, link.session.id, value.id, secret_hash, version, now)

    async def _again(
        self, work: AuthUnitOfWork, value: RefreshTokenValue, now: datetime
    ) -> RefreshTokenValue | Exception:
        """Decide on a token that was used before: the same successor again, superseded, or stolen."""
        parent = await work.refresh_tokens.get(value.id)
        child = await work.refresh_tokens.child_of(value.id)
        session = await work.sessions.get(parent.session_id) if parent else None
        if parent is None or parent.used_at is None or child is None or session is None:  # purged meanwhile
            return RefreshInvalid()
        if session.revoked_at is not None:  # logged out since the token was looked at
            return SessionRevoked()
        if now - parent.used_at > self._policy.refresh_grace:
            await work.sessions.revoke(parent.session_id, at=now, reason="refresh_reused")
            return RefreshReused()
        key = self._successor_keys.key(child.key_version)
        if child.used_at is not None or key is None:
            return RefreshSuperseded()
        return value.successor(child.id, key)

"""Issuing of the tokens that a login, a refresh or a reauthentication returns."""

from datetime import datetime

from tequipy_auth.domain.entities import Session, User
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AccessTokens
from tequipy_auth.domain.value_objects import AccessToken, Principal, RefreshTokenValue, TokenPair


class TokenIssuer:
    """Signs access tokens for users and sessions, and assembles token pairs."""

    def __init__(self, access_tokens: AccessTokens, policy: AuthPolicy) -> None:
        self._access_tokens = access_tokens
        self._policy = policy

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

    async def check(self) -> None:
        """Raise `Unavailable` unless this process can sign tokens."""
        await self._access_tokens.check()

    async def pair(self, user: User, session: Session, refresh: RefreshTokenValue, now: datetime) -> TokenPair:
        """Sign an access token and return it with the given refresh token."""
        return self.assemble(await self.access_token(user, session), session, refresh, now)

    def assemble(self, access: AccessToken, session: Session, refresh: RefreshTokenValue, now: datetime) -> TokenPair:
        """Return a token pair made of an access token and a refresh token."""
        idle_end = min(now + self._policy.refresh_idle, session.absolute_expires_at)
        return TokenPair(access, refresh, refresh_expires_in=int((idle_end - now).total_seconds()))

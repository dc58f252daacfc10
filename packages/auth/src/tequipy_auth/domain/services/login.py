"""Login and reauthentication."""

from collections.abc import Callable
from dataclasses import replace

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.entities import Session, User
from tequipy_auth.domain.exceptions import EmailNotVerified, InvalidAccessToken, InvalidCredentials, ReauthRequired
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AddressParser
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.password_check import PasswordCheck, VerifiedAttempt
from tequipy_auth.domain.services.session_issuer import NewSession, SessionIssuer, find_caller
from tequipy_auth.domain.value_objects import AccessToken, Client, Principal, TokenPair
from tequipy_platform import Clock, retry_conflicts


class LoginService:
    """Starts sessions with a password, and checks the password again before sensitive operations."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        addresses: AddressParser,
        check: PasswordCheck,
        devices: DeviceMarks,
        issuer: SessionIssuer,
        policy: AuthPolicy,
        clock: Clock,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._addresses = addresses
        self._check = check
        self._devices = devices
        self._issuer = issuer
        self._policy = policy
        self._clock = clock
        self._operations = operations

    @counted("login")
    async def with_password(self, *, email: str, password: str, client: Client) -> TokenPair:
        """Start a session; an unknown address costs the same hashing as a known one.

        Raises `InvalidAddress`, `InvalidCredentials`, `LoginLocked`, `Unavailable` when the hashing queue is full, and
        `EmailNotVerified` with open registration after the correct password.
        """
        address = self._addresses.parse(email)
        # Checked first: otherwise an attempt would be counted and a session started that gets no tokens.
        await self._issuer.check_signing_key()
        async with self._unit_of_work() as work:
            user = await work.users.by_email(address.canonical)
            attempt = await self._check.reserve(work, address=address, user=user, client=client, operation="login")
        verified = await self._check.verify(attempt, password)
        async with self._check.released_on_outage(verified):
            if not verified.user.email_verified:
                await self._check.refuse(verified, EmailNotVerified.code)
                raise EmailNotVerified
            new = await self._issuer.prepare(verified.user, client, amr=("pwd",))
            logged_in = await self._start_session(verified, new, client)
            if logged_in is None:
                verified = await self._check.verify_again(verified, password)
                logged_in = await self._start_session(verified, new, client)
            if logged_in is None:
                raise InvalidCredentials
        user, device_mark = logged_in
        access = await self._issuer.access_token(user, new.session)
        pair = self._issuer.token_pair(access, new.session, new.refresh_token_value, new.session.created_at)
        return replace(pair, device_mark=device_mark)

    @counted("reauthenticate")
    async def reauthenticate(self, principal: Principal, *, password: str, client: Client) -> AccessToken:
        """Check the password again, record the time in the session and return a new access token.

        Raises `InvalidAccessToken` when the session has ended, `InvalidCredentials`, `LoginLocked`, `Unavailable`.
        """
        # Checked first: otherwise an attempt would be counted and the session changed without a new token.
        await self._issuer.check_signing_key()
        async with self._unit_of_work() as work:
            user, session = await find_caller(work, principal)
            attempt = await self._check.reserve(
                work,
                address=user.email,
                user=user,
                client=client,
                operation="reauthenticate",
                session_id=session.id,
            )
        verified = await self._check.verify(attempt, password)
        async with self._check.released_on_outage(verified):
            renewed = await self._renew_session(verified, session, client)
            if renewed is None:
                verified = await self._check.verify_again(verified, password)
                renewed = await self._renew_session(verified, session, client)
            if renewed is None:
                raise InvalidCredentials
        return await self._issuer.access_token(*renewed)

    async def require_fresh(self, principal: Principal) -> None:
        """Raise `ReauthRequired` unless the caller authenticated within the last few minutes.

        It reads the session from the database, so that a reauthentication or the session's end takes effect at once; a
        session that has ended raises `InvalidAccessToken`.
        """
        async with self._unit_of_work() as work:
            _, session = await find_caller(work, principal)
        if self._clock.now() - session.auth_time >= self._policy.fresh_for:
            raise ReauthRequired

    @retry_conflicts
    async def _start_session(
        self, verified: VerifiedAttempt, new: NewSession, client: Client
    ) -> tuple[User, str] | None:
        """Commit the session and return the account and a device mark; None if the password hash was replaced."""
        async with self._unit_of_work() as work:
            user = await self._check.confirm(work, verified)
            if user is None:
                return None
            device_mark = await self._devices.issue(work, user, known=client.device_mark)
            revoked_ids = await self._issuer.save(work, new)
            await work.users.record_login(user.id, at=new.session.created_at)
            work.audit.record(_login_event(user, new.session, new.session.client))
        await self._issuer.publish(revoked_ids)
        return user, device_mark

    @retry_conflicts
    async def _renew_session(
        self, verified: VerifiedAttempt, session: Session, client: Client
    ) -> tuple[User, Session] | None:
        """Commit the time of authentication and return account and session; None if the password hash was replaced."""
        now = self._clock.now()
        async with self._unit_of_work() as work:
            user = await self._check.confirm(work, verified)
            if user is None:
                return None
            if not await work.sessions.reauthenticate(session.id, at=now):
                raise InvalidAccessToken
            work.audit.record(_login_event(user, session, client, reason="reauthenticate"))
        return user, replace(session, auth_time=now)


def _login_event(user: User, session: Session, client: Client, *, reason: str | None = None) -> AuditEvent:
    return AuditEvent(
        AuditAction.LOGIN_OK,
        reason=reason,
        actor_id=user.id,
        subject_id=user.id,
        session_id=session.id,
        client=client,
    )

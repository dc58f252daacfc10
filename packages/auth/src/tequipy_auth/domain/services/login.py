"""Login and reauthentication."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.entities import Session
from tequipy_auth.domain.exceptions import EmailNotVerified, ReauthRequired
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AddressParser
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.password_check import PasswordCheck, VerifiedAttempt
from tequipy_auth.domain.services.session_issuer import NewSession, SessionIssuer, find_caller
from tequipy_auth.domain.services.sign_ins import SignInService
from tequipy_auth.domain.value_objects import Client, Principal, TokenPair
from tequipy_platform import Clock, Unavailable, retry_conflicts

ADMITTED: Final = 3
"""How many logins of a process use the database at the same time before they hash.

Each takes some milliseconds and each hash a quarter of a second of a core, so that these keep tens of cores busy.
"""

ADMISSION_SECONDS: Final = 5.0
"""How long a login waits for the database; with a database that answers, hundreds take less."""


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
        sign_ins: SignInService,
        policy: AuthPolicy,
        clock: Clock,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._addresses = addresses
        self._check = check
        self._devices = devices
        self._issuer = issuer
        self._sign_ins = sign_ins
        self._policy = policy
        self._clock = clock
        self._operations = operations
        self._loop: asyncio.AbstractEventLoop | None = None
        self._places = asyncio.Semaphore(ADMITTED)

    @counted("login")
    async def with_password(self, *, email: str, password: str, client: Client) -> TokenPair:
        """Start a session; an unknown address costs the same hashing as a known one.

        Raises `InvalidAddress`, `InvalidCredentials`, `LoginLocked`, `Unavailable` when the hashing queue is full, and
        `EmailNotVerified` with open registration after the correct password.
        """
        address = self._addresses.parse(email)
        # Checked first: otherwise an attempt would be counted and a session started that gets no tokens.
        await self._issuer.check_signing_key()
        async with self._admission(), self._unit_of_work() as work:
            user = await work.users.by_email(address.canonical)
            attempt = await self._check.reserve(work, address=address, user=user, client=client, operation="login")
        verified = await self._check.verify(attempt, password)
        async with self._check.settled(verified):
            if not verified.user.email_verified:
                await self._check.refuse(verified, EmailNotVerified.code)
                raise EmailNotVerified
        return await self._begin(verified, client)

    @counted("reauthenticate")
    async def reauthenticate(self, principal: Principal, *, password: str, client: Client) -> TokenPair:
        """Check the password again and replace the session by one with a new authentication time (ASVS 7.2.4).

        A copy of the earlier session's refresh token gains nothing by it. Raises `InvalidAccessToken` when the session
        has ended, `InvalidCredentials`, `LoginLocked`, `Unavailable`.
        """
        # Checked first: otherwise an attempt would be counted and the session replaced without a new token.
        await self._issuer.check_signing_key()
        async with self._unit_of_work() as work:
            user, session = await find_caller(work, principal, at=self._clock.now())
            attempt = await self._check.reserve(
                work,
                address=user.email,
                user=user,
                client=client,
                operation="reauthenticate",
                session_id=session.id,
            )
        verified = await self._check.verify(attempt, password)
        return await self._begin(verified, client, replaces=session)

    async def require_fresh(self, principal: Principal) -> None:
        """Raise `ReauthRequired` unless the caller authenticated within the last few minutes.

        It reads the session from the database, so that a reauthentication or the session's end takes effect at once; a
        session that has ended raises `InvalidAccessToken`.
        """
        async with self._unit_of_work() as work:
            _, session = await find_caller(work, principal, at=self._clock.now())
        if self._clock.now() - session.auth_time >= self._policy.fresh_for:
            raise ReauthRequired

    @asynccontextmanager
    async def _admission(self) -> AsyncIterator[None]:
        """Let `ADMITTED` logins at a time use the database before they hash, the others wait in order of arrival.

        A burst of logins would otherwise fill each turn of the event loop and the connection pool, although hashes are
        what limits logins. Raises `Unavailable` after `ADMISSION_SECONDS`.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a semaphore that has been waited for belongs to one event loop
            self._loop, self._places = loop, asyncio.Semaphore(ADMITTED)
        places = self._places
        try:
            async with asyncio.timeout(ADMISSION_SECONDS):
                await places.acquire()
        except TimeoutError as error:
            raise Unavailable from error
        try:
            yield
        finally:
            places.release()

    async def _begin(self, verified: VerifiedAttempt, client: Client, *, replaces: Session | None = None) -> TokenPair:
        """Begin a session after a correct password, whatever the way in."""
        async with self._check.settled(verified):
            new = await self._issuer.prepare(verified.user, client, amr=("pwd",), replaces=replaces)
            # Signed before the commit: a revocation after the commit is then stored until this token has expired. After
            # a change of roles since the account was read the token is outdated, and the client refreshes.
            access = await self._issuer.access_token(verified.user, new.session)
            device_mark = await self._save(verified, new, client)
        pair = self._issuer.token_pair(access, new.session, new.refresh_token_value, new.session.auth_time)
        return replace(pair, device_mark=device_mark)

    @retry_conflicts
    async def _save(self, verified: VerifiedAttempt, new: NewSession, client: Client) -> str | None:
        """Commit the session; return a device mark."""
        async with self._unit_of_work() as work:
            user = await self._check.confirm(work, verified)
            if new.replaces is None:
                await self._sign_ins.announce(work, user, new.session, client)
            device_mark = None
            # A session that replaces another one goes on at the same device: only a mark that was sent is renewed.
            # A new one at each reauthentication would push out those of other devices.
            if new.replaces is None or await self._devices.recognise(work, user, client.device_mark) is not None:
                device_mark = await self._devices.issue(work, user, known=client.device_mark)
            revoked_ids = await self._issuer.save(work, new)
            work.audit.record(
                AuditEvent(
                    AuditAction.LOGIN_OK,
                    reason="reauthenticate" if new.replaces else None,
                    actor_id=user.id,
                    subject_id=user.id,
                    session_id=new.session.id,
                    client=client,
                )
            )
        await self._issuer.publish(revoked_ids)
        return device_mark

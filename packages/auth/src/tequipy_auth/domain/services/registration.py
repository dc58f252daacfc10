"""Registration (private, open or closed), verification of addresses, and creation of administrators."""

from collections.abc import Callable
from dataclasses import replace

from tequipy_auth.domain.audit import AuditAction, AuditEvent, Outcome
from tequipy_auth.domain.display_text import display_name
from tequipy_auth.domain.entities import Registration, User
from tequipy_auth.domain.exceptions import (
    EmailTaken,
    InvalidCredentials,
    InvalidOneTimeToken,
    PasswordRequired,
    RegistrationClosed,
)
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.passwords import PasswordRules, normalise
from tequipy_auth.domain.policy import REGISTRATION_TTL, RegistrationMode
from tequipy_auth.domain.ports import AddressParser, PasswordHasher
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.one_time_tokens import read_one_time_token, record_refused_token
from tequipy_auth.domain.task_names import SEND_MAIL
from tequipy_auth.domain.value_objects import Client, EmailAddress, OneTimeTokenValue, PasswordHash, Purpose
from tequipy_platform import Clock, IdSource, Unavailable, retry_conflicts


class RegistrationService:
    """Registers users; in private mode nobody can find out which addresses have accounts."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        addresses: AddressParser,
        rules: PasswordRules,
        hasher: PasswordHasher,
        pseudonyms: Pseudonyms,
        mode: RegistrationMode,
        clock: Clock,
        new_id: IdSource,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._addresses = addresses
        self._rules = rules
        self._hasher = hasher
        self._pseudonyms = pseudonyms
        self._mode = mode
        self._clock = clock
        self._new_id = new_id
        self._operations = operations

    @counted("register")
    @retry_conflicts
    async def register(self, *, email: str, password: str, name: str | None = None, client: Client) -> User | None:
        """Accept a registration; the worker decides which mail to send.

        Private mode returns None and does the same work for known and unknown addresses: parse, hash, one row, one
        outbox row. Open mode creates an unverified account, returns it, and raises `EmailTaken`. Both raise
        `InvalidAddress`, `InvalidName`, `WeakPassword` and `Unavailable`. The mode `invite` raises
        `RegistrationClosed` whatever is registered.
        """
        if self._mode == "invite":
            raise RegistrationClosed
        address = self._addresses.parse(email)
        name = None if name is None else display_name(name)
        accepted = await self._rules.accept(password, address)
        hashed = await self._hasher.hash(accepted, HashingClient.of(client))
        if self._mode == "open":
            return await self._open_account(address, name, hashed, client)
        now = self._clock.now()
        registration = Registration(
            id=self._new_id(),
            email=address,
            name=name,
            password=hashed,
            created_at=now,
            expires_at=now + REGISTRATION_TTL,
        )
        async with self._unit_of_work() as work:
            await work.registrations.lock(address.canonical)
            await work.registrations.add(registration)
            work.outbox.add(SEND_MAIL, mail="verification", subject_id=str(registration.id))
            work.audit.record(self._registration_event(address, client))
        return None

    @counted("resend_verification")
    @retry_conflicts
    async def resend_verification(self, *, email: str) -> None:
        """Request another verification link; does the same work for every address. Raises `InvalidAddress`."""
        address = self._addresses.parse(email)
        async with self._unit_of_work() as work:
            registration = await work.registrations.newest_of(address.canonical, at=self._clock.now())
            user = await work.users.by_email(address.canonical)
            subject = registration or user
            subject_id = subject.id if subject else self._new_id()  # an id without a row; the worker then sends nothing
            work.outbox.add(SEND_MAIL, mail="verification_again", subject_id=str(subject_id))

    @counted("verify_email")
    @retry_conflicts
    async def verify_email(self, token: str, *, password: str | None = None, client: Client) -> None:
        """Verify an address with the token that was mailed to it.

        In private mode this turns the registration into an account with the password of that registration; in open mode
        it marks the account as verified. While the address has several pending registrations, the password of the
        link's own registration is required, because the registration may be an attacker's. A password is checked
        whenever it is given.

        Raises `InvalidOneTimeToken` for any fault of the token, `PasswordRequired`, `InvalidCredentials` (the token can
        still be used until `TRIES_PER_TOKEN` attempts are used up) and `Unavailable`.
        """
        value = read_one_time_token(token)
        try:
            password_checked = password is not None and await self._check_password(value, password, client)
            await self._verify(value, client, password_checked=password_checked)
        except (InvalidOneTimeToken, PasswordRequired, InvalidCredentials) as error:
            async with self._unit_of_work() as work:
                await record_refused_token(work, value, AuditAction.VERIFIED, error.code, client)
            raise

    @counted("create_admin")
    @retry_conflicts
    async def create_admin(self, *, email: str, password: str, name: str | None = None) -> None:
        """Create an administrator with a verified address; raises the same as `register`, and `EmailTaken`."""
        address = self._addresses.parse(email)
        name = None if name is None else display_name(name)
        accepted = await self._rules.accept(password, address)
        hashed = await self._hasher.hash(accepted, HashingClient.of(Client()))
        async with self._unit_of_work() as work:
            admin = self._new_user(address, name, hashed, verified=True, role="admin")
            await work.users.add(admin)
            await work.registrations.delete_for(address.canonical)
            work.audit.record(AuditEvent(AuditAction.REGISTERED, reason="create_admin", subject_id=admin.id))

    async def _check_password(self, value: OneTimeTokenValue, password: str, client: Client) -> bool:
        """Check the password of the registration that a token belongs to.

        Returns whether there is one to check: a token of an account, with open registration, needs no password. The
        attempt is counted before the password is hashed, so that concurrent attempts cannot exceed the limit. Raises
        `InvalidOneTimeToken`, `InvalidCredentials` and `Unavailable`.
        """
        presented = (value.id, Purpose.VERIFY_EMAIL, value.secret_hash)
        async with self._unit_of_work() as work:
            subject_id = await work.one_time_tokens.reserve_try(*presented, at=self._clock.now())
            if subject_id is None:
                raise InvalidOneTimeToken
            registration = await work.registrations.get(subject_id)
            if registration is None:
                await work.one_time_tokens.release_try(value.id)
                return False
        try:
            matches = await self._hasher.verify(normalise(password), registration.password, HashingClient.of(client))
        except Unavailable:
            async with self._unit_of_work() as work:
                await work.one_time_tokens.release_try(value.id)
            raise
        if not matches:
            raise InvalidCredentials
        return True

    async def _verify(self, value: OneTimeTokenValue, client: Client, *, password_checked: bool) -> None:
        """Use the token and turn its registration into an account, or mark its account as verified.

        Every exception rolls back the use of the token.
        """
        now, presented = self._clock.now(), (value.id, Purpose.VERIFY_EMAIL, value.secret_hash)
        async with self._unit_of_work() as work:
            # `consume` accepts a token without attempts left, which only a checked password may use.
            if not password_checked and await work.one_time_tokens.peek(*presented, at=now) is None:
                raise InvalidOneTimeToken
            subject_id = await work.one_time_tokens.consume(*presented, at=now)
            registration = await work.registrations.get(subject_id) if subject_id else None
            user = await work.users.lock(subject_id) if subject_id else None
            if registration is not None:
                await self._require_password_if_contested(work, registration, password_checked=password_checked)
                user = self._new_user(registration.email, registration.name, registration.password, verified=True)
                try:
                    await work.users.add(user)
                except EmailTaken as error:
                    raise InvalidOneTimeToken from error
            elif user is not None and not user.email_verified:
                await work.users.set_verified(user.id)
            else:
                raise InvalidOneTimeToken
            await work.registrations.delete_for(user.email.canonical)
            work.audit.record(AuditEvent(AuditAction.VERIFIED, actor_id=user.id, subject_id=user.id, client=client))

    async def _require_password_if_contested(
        self, work: AuthUnitOfWork, registration: Registration, *, password_checked: bool
    ) -> None:
        """Raise `PasswordRequired` if the address is contested and no password was checked.

        The lock makes further registrations of the address wait until this transaction ends.
        """
        address = registration.email.canonical
        await work.registrations.lock(address)
        if not password_checked and await work.registrations.count_pending(address, at=self._clock.now()) > 1:
            raise PasswordRequired

    async def _open_account(
        self, email: EmailAddress, name: str | None, password: PasswordHash, client: Client
    ) -> User:
        user = self._new_user(email, name, password, verified=False)
        event = self._registration_event(email, client)
        taken: EmailTaken | None = None
        async with self._unit_of_work() as work:
            try:
                await work.users.add(user)
            except EmailTaken as error:  # raised after the audit event is committed
                taken = error
                event = replace(event, outcome=Outcome.FAILURE, reason=error.code)
            else:
                event = replace(event, subject_id=user.id)
                await work.registrations.delete_for(email.canonical)
                work.outbox.add(SEND_MAIL, mail="verification", subject_id=str(user.id))
            work.audit.record(event)
        if taken is not None:
            raise taken
        return user

    def _registration_event(self, address: EmailAddress, client: Client) -> AuditEvent:
        metadata = {"address": self._pseudonyms.of_address(address)}
        return AuditEvent(AuditAction.REGISTERED, client=client, metadata=metadata)

    def _new_user(
        self, email: EmailAddress, name: str | None, password: PasswordHash, *, verified: bool, role: str = "user"
    ) -> User:
        return User(
            id=self._new_id(),
            email=email,
            email_verified=verified,
            name=name,
            password=password,
            roles=(role,),
            created_at=self._clock.now(),
        )

"""Becoming a user: register privately, verify the address, and the first admin."""

from collections.abc import Callable
from datetime import timedelta

from tequipy_auth.domain import passwords
from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.entities import Registration, User
from tequipy_auth.domain.exceptions import EmailTaken, InvalidOneTimeToken
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AddressParser, PasswordHasher
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import Client, EmailAddress, OneTimeTokenValue, PasswordHash, Purpose
from tequipy_platform import Clock, IdSource

REGISTRATION_LIFE = timedelta(days=2)
"""A pending registration outlives the last link that could be mailed for it."""


class RegistrationService:
    """Registration that tells a stranger nothing about who has an account."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        addresses: AddressParser,
        hasher: PasswordHasher,
        policy: AuthPolicy,
        clock: Clock,
        new_id: IdSource,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._addresses = addresses
        self._hasher = hasher
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self.operations = operations

    @counted("register")
    async def register(self, *, email: str, password: str, name: str | None = None, client: Client) -> None:
        """Take a registration in and have the worker decide what to mail.

        Does the same work for a known and an unknown address: parse, hash, one row, one outbox row. Raises
        `InvalidAddress` and `WeakPassword`.
        """
        address = self._addresses.parse(email)
        hashed = await self._hasher.hash(passwords.accept(password, address, self._policy))
        now = self._clock.now()
        registration = Registration(
            id=self._new_id(),
            email=address,
            name=name,
            password=hashed,
            created_at=now,
            expires_at=now + REGISTRATION_LIFE,
        )
        async with self._unit_of_work() as work:
            await work.registrations.add(registration)
            work.outbox.add("auth.send_mail", mail="registration", subject_id=str(registration.id))
            work.audit.record(AuditEvent(AuditAction.REGISTERED, client=client))

    @counted("verify_email")
    async def verify_email(self, token: str, *, client: Client) -> None:
        """Turn the registration that a mailed token belongs to into an account, with the password of that registration.

        Raises `InvalidOneTimeToken`, whatever is wrong with the token.
        """
        try:
            value = OneTimeTokenValue.parse(token)
        except ValueError as error:
            raise InvalidOneTimeToken from error
        now = self._clock.now()
        async with self._unit_of_work() as work:
            registration_id = await work.one_time_tokens.consume(
                value.id, Purpose.VERIFY_EMAIL, value.secret_hash, at=now
            )
            registration = await work.registrations.get(registration_id) if registration_id else None
            if registration is None:
                raise InvalidOneTimeToken
            user = self._new_user(registration.email, registration.name, registration.password, role="user")
            try:
                await work.users.add(user)
            except EmailTaken as error:
                raise InvalidOneTimeToken from error
            await work.registrations.delete_for(registration.email.canonical)
            work.audit.record(AuditEvent(AuditAction.VERIFIED, actor_id=user.id, subject_id=user.id, client=client))

    @counted("create_admin")
    async def create_admin(self, *, email: str, password: str, name: str | None = None) -> None:
        """Make an administrator whose address counts as verified; raises as `register`, and `EmailTaken`."""
        address = self._addresses.parse(email)
        hashed = await self._hasher.hash(passwords.accept(password, address, self._policy))
        async with self._unit_of_work() as work:
            admin = self._new_user(address, name, hashed, role="admin")
            await work.users.add(admin)
            await work.registrations.delete_for(address.canonical)
            work.audit.record(AuditEvent(AuditAction.REGISTERED, reason="create_admin", subject_id=admin.id))

    def _new_user(self, email: EmailAddress, name: str | None, password: PasswordHash, *, role: str) -> User:
        return User(
            id=self._new_id(),
            email=email,
            email_verified=True,
            name=name,
            password=password,
            roles=(role,),
            created_at=self._clock.now(),
        )

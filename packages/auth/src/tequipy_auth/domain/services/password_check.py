"""Password checks with lockout and audit, for every operation that asks for a password."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, Outcome
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.entities import User, UserStatus
from tequipy_auth.domain.exceptions import InvalidCredentials, LoginLocked
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.lockout import Locked, Lockout, Origin, Reservation
from tequipy_auth.domain.passwords import normalise
from tequipy_auth.domain.ports import PasswordHasher
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import Client, EmailAddress, PasswordHash
from tequipy_platform import Unavailable, retry_conflicts


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to enter a password, before the password is checked."""

    user: User | None
    decision: Reservation | Locked
    """The reservation, or the lock that refuses the attempt."""
    event: AuditEvent
    """The audit event to record if the attempt fails."""
    hashing_client: HashingClient
    highest_cost: int
    """The highest cost of all stored hashes, so that every failed check takes the same time."""


@dataclass(frozen=True, slots=True)
class VerifiedAttempt:
    """An attempt with the correct password."""

    user: User
    reservation: Reservation
    attempt: Attempt
    new_hash: PasswordHash | None
    """A hash with the current parameters, to replace an outdated one; None if the stored hash is up to date."""


class PasswordCheck:
    """Checks a password in three steps, because hashing must not happen in a transaction.

    `reserve` runs in the caller's unit of work, `verify` outside of any, and `confirm` in the unit of work that uses
    the result:

        async with unit_of_work() as work:
            attempt = await check.reserve(work, ...)
        verified = await check.verify(attempt, password)
        async with check.settled(verified):
            async with unit_of_work() as work:
                user = await check.confirm(work, verified)
    """

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        hasher: PasswordHasher,
        lockout: Lockout,
        devices: DeviceMarks,
        pseudonyms: Pseudonyms,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._hasher = hasher
        self._pseudonyms = pseudonyms
        self._lockout = lockout
        self._devices = devices

    async def reserve(
        self,
        work: AuthUnitOfWork,
        *,
        address: EmailAddress,
        user: User | None,
        client: Client,
        operation: str,
        session_id: UUID | None = None,
    ) -> Attempt:
        """Reserve an attempt; the work is the same for existing and unknown accounts.

        `session_id` is the live session of the caller, if there is one.
        """
        event = AuditEvent(
            AuditAction.LOGIN_FAILED,
            Outcome.FAILURE,
            InvalidCredentials.code,
            subject_id=user.id if user else None,
            client=client,
            metadata={"operation": operation, "address": self._pseudonyms.of_address(address)},
        )
        device_id = await self._devices.recognise(work, user, client.device_mark) if user else None
        decision = await self._lockout.reserve(work.attempts, address, Origin(client, device_id, session_id))
        if isinstance(decision, Locked):
            metadata = {**event.metadata, "scope": decision.scope.label}
            locked = replace(event, action=AuditAction.LOGIN_LOCKED, reason=LoginLocked.code, metadata=metadata)
            work.audit.record(locked)
        hashing_client = HashingClient.of(client, marked=device_id is not None)
        return Attempt(user, decision, event, hashing_client, await work.users.highest_password_cost())

    async def verify(self, attempt: Attempt, password: str) -> VerifiedAttempt:
        """Check the password, or count a failure; raises `LoginLocked`, `InvalidCredentials` and `Unavailable`.

        An attempt whose password could not be checked is released. One whose failure could not be stored is not: its
        reservation counts until it expires, so that an outage allows no further guesses.
        """
        if isinstance(attempt.decision, Locked):
            raise LoginLocked(retry_after=attempt.decision.retry_after)
        user, normalised = attempt.user, normalise(password)
        stored = user.password if user else None
        try:
            matches = await self._hasher.verify(
                normalised, stored, attempt.hashing_client, highest_cost=attempt.highest_cost
            )
        except Unavailable:
            await self._release(attempt.decision)
            raise
        if user is None or not matches or user.status is not UserStatus.ACTIVE:
            await self._fail(attempt, attempt.decision)
            raise InvalidCredentials
        new_hash = await self._hash_if_outdated(user.password, normalised, attempt.hashing_client)
        return VerifiedAttempt(user, attempt.decision, attempt, new_hash)

    async def confirm(self, work: AuthUnitOfWork, verified: VerifiedAttempt) -> User:
        """Lock the user's row, delete the counters of this client and return the current account.

        Raises `InvalidCredentials` if the account is gone or not active, or has another password by now. A hash that
        another login has renewed is one of the same password.
        """
        user = await work.users.lock(verified.user.id)
        checked = verified.user
        if user is None or user.status is not UserStatus.ACTIVE or user.password_epoch != checked.password_epoch:
            raise InvalidCredentials
        await self._lockout.succeed(work.attempts, verified.reservation)
        if verified.new_hash is not None and user.password == checked.password:
            await work.users.renew_password_hash(user.id, verified.new_hash)
            user = replace(user, password=verified.new_hash)
        return user

    async def refuse(self, verified: VerifiedAttempt, reason: str) -> None:
        """Audit that the correct password was not accepted; this counts neither as a failure nor as a success."""
        async with self._unit_of_work() as work:
            await self._lockout.release(work.attempts, verified.reservation)
            work.audit.record(replace(verified.attempt.event, reason=reason))

    @asynccontextmanager
    async def settled(self, verified: VerifiedAttempt) -> AsyncIterator[None]:
        """Settle the reservation if the block fails.

        `InvalidCredentials`, which `confirm` raises, is counted and audited as a failure; `Unavailable` is none.
        """
        try:
            yield
        except Unavailable:
            await self._release(verified.reservation)
            raise
        except InvalidCredentials:
            await self._fail(verified.attempt, verified.reservation)
            raise

    async def _release(self, reservation: Reservation) -> None:
        async with self._unit_of_work() as work:
            await self._lockout.release(work.attempts, reservation)

    @retry_conflicts
    async def _fail(self, attempt: Attempt, reservation: Reservation) -> None:
        async with self._unit_of_work() as work:
            await self._lockout.fail(work.attempts, reservation)
            work.audit.record(attempt.event)

    async def _hash_if_outdated(
        self, stored: PasswordHash, password: str, client: HashingClient
    ) -> PasswordHash | None:
        if self._hasher.is_outdated(stored):
            with suppress(Unavailable):  # the next login tries again
                return await self._hasher.hash(password, client)
        return None

"""Password checks with lockout and audit, for every operation that asks for a password."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, Outcome
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.entities import User
from tequipy_auth.domain.exceptions import InvalidCredentials, LoginLocked
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.lockout import Locked, Lockout, Origin, Reservation
from tequipy_auth.domain.passwords import normalise
from tequipy_auth.domain.ports import PasswordHasher
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import Client, EmailAddress, PasswordHash
from tequipy_platform import Unavailable

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was reserved or refused; `event` is the audit event for its failure."""

    user: User | None
    reserved: Reservation | Locked
    event: AuditEvent
    hashing_client: HashingClient
    highest_cost: int


@dataclass(frozen=True, slots=True)
class Proof:
    """A correct password; `renewed` is a new hash with the current parameters, None if the stored one is up to date."""

    user: User
    reservation: Reservation
    event: AuditEvent
    renewed: PasswordHash | None
    hashing_client: HashingClient


class _PasswordHashReplaced(InvalidCredentials):
    """The stored hash was replaced after it was checked; `user` is the current account."""

    def __init__(self, user: User) -> None:
        super().__init__()
        self.user = user


class PasswordCheck:
    """Checks a password in three steps, because hashing must not happen in a transaction.

    The steps are `begin`, `verify`, and `succeed` or `refuse`. All except `verify` run in the caller's units of work.
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

    async def begin(
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
        device = await self._devices.recognise(work, user, client.device) if user else None
        reserved = await self._lockout.reserve(work.attempts, address, Origin(client, device, session_id))
        if isinstance(reserved, Locked):
            scope = {"scope": reserved.scope.label}
            metadata = {**event.metadata, **scope}
            work.audit.record(
                replace(event, action=AuditAction.LOGIN_LOCKED, reason=LoginLocked.code, metadata=metadata)
            )
        hashing_client = HashingClient.of(client, trusted=device is not None)
        return Attempt(user, reserved, event, hashing_client, await work.users.highest_password_cost())

    async def verify(self, attempt: Attempt, password: str, use: Callable[[Proof], Awaitable[R]]) -> R:
        """Check the password and return the result of `use(proof)`, which must call `succeed` or `refuse`.

        When `succeed` finds that the stored hash was replaced, the password is checked once more, because another login
        may have renewed the hash of the same password. Raises `LoginLocked`, `InvalidCredentials` and `Unavailable`.
        """
        try:
            return await self._use(await self._verify(attempt, password), use)
        except _PasswordHashReplaced as replaced:
            return await self._use(await self._verify(replace(attempt, user=replaced.user), password), use)

    async def _use(self, proof: Proof, use: Callable[[Proof], Awaitable[R]]) -> R:
        """Return the result of `use(proof)`; release the reservation if it raises `Unavailable`."""
        try:
            return await use(proof)
        except Unavailable:
            async with self._unit_of_work() as work:
                await self._lockout.release(work.attempts, proof.reservation)
            raise

    async def _verify(self, attempt: Attempt, password: str) -> Proof:
        """Check the password if the attempt was reserved; release the reservation if it could not be checked."""
        if isinstance(attempt.reserved, Locked):
            raise LoginLocked(retry_after=attempt.reserved.retry_after)
        user, normalised = attempt.user, normalise(password)
        try:
            matches = await self._hasher.verify(
                normalised,
                user.password if user else None,
                attempt.hashing_client,
                highest_cost=attempt.highest_cost,
            )
        except Unavailable:
            async with self._unit_of_work() as work:
                await self._lockout.release(work.attempts, attempt.reserved)
            raise
        if user is None or not matches:
            async with self._unit_of_work() as work:
                await self._lockout.fail(work.attempts, attempt.reserved)
                work.audit.record(attempt.event)
            raise InvalidCredentials
        renewed = await self._renewed(user.password, normalised, attempt.hashing_client)
        return Proof(user, attempt.reserved, attempt.event, renewed, attempt.hashing_client)

    async def succeed(self, work: AuthUnitOfWork, proof: Proof) -> User:
        """Lock the user's row, delete the counters of this client and return the current account.

        Raises `InvalidCredentials` when the account is gone or its hash was replaced since it was checked.
        """
        user = await work.users.lock(proof.user.id)
        if user is None:
            raise InvalidCredentials
        if user.password != proof.user.password:
            raise _PasswordHashReplaced(user)
        await self._lockout.succeed(work.attempts, proof.reservation)
        if proof.renewed is not None:
            await work.users.renew_password_hash(user.id, proof.renewed)
            user = replace(user, password=proof.renewed)
        return user

    async def refuse(self, work: AuthUnitOfWork, proof: Proof, reason: str) -> None:
        """Audit that the correct password was not accepted; this counts neither as a failure nor as a success."""
        await self._lockout.release(work.attempts, proof.reservation)
        work.audit.record(replace(proof.event, reason=reason))

    async def _renewed(self, stored: PasswordHash, password: str, client: HashingClient) -> PasswordHash | None:
        if self._hasher.is_outdated(stored):
            with suppress(Unavailable):  # the next login tries again
                return await self._hasher.hash(password, client)
        return None

"""Password checks with lockout and audit, for every operation that asks for a password."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
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
from tequipy_platform import Unavailable, retry_conflicts


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
    attempt: Attempt
    renewed: PasswordHash | None


class PasswordCheck:
    """Checks a password in three steps, because hashing must not happen in a transaction.

    `reserve` runs in the caller's unit of work, `verify` outside of any, and `confirm` in the unit of work that uses
    the proof:

        async with unit_of_work() as work:
            attempt = await check.reserve(work, ...)
        proof = await check.verify(attempt, password)
        async with check.released_on_outage(proof):
            async with unit_of_work() as work:
                user = await check.confirm(work, proof)
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

    async def verify(self, attempt: Attempt, password: str) -> Proof:
        """Check the password, or count a failure; raises `LoginLocked`, `InvalidCredentials` and `Unavailable`.

        An attempt whose password could not be checked is released. One whose failure could not be stored is not: its
        reservation counts until it expires, so that an outage allows no further guesses.
        """
        if isinstance(attempt.reserved, Locked):
            raise LoginLocked(retry_after=attempt.reserved.retry_after)
        user, normalised = attempt.user, normalise(password)
        stored = user.password if user else None
        try:
            matches = await self._hasher.verify(
                normalised, stored, attempt.hashing_client, highest_cost=attempt.highest_cost
            )
        except Unavailable:
            await self._release(attempt.reserved)
            raise
        if user is None or not matches:
            await self._fail(attempt, attempt.reserved)
            raise InvalidCredentials
        renewed = await self._renewed(user.password, normalised, attempt.hashing_client)
        return Proof(user, attempt.reserved, attempt, renewed)

    async def verify_again(self, proof: Proof, password: str) -> Proof:
        """Check the password against the hash that replaced the one of `proof`; raises the same errors as `verify`.

        Another login may have renewed the hash of the same password while this one was checked.
        """
        async with self._unit_of_work() as work:
            user = await work.users.get(proof.user.id)
        return await self.verify(replace(proof.attempt, user=user), password)

    async def confirm(self, work: AuthUnitOfWork, proof: Proof) -> User | None:
        """Lock the user's row, delete the counters of this client and return the current account.

        Returns None if the stored hash was replaced since it was checked; then nothing is changed. Raises
        `InvalidCredentials` if the account is gone.
        """
        user = await work.users.lock(proof.user.id)
        if user is None:
            raise InvalidCredentials
        if user.password != proof.user.password:
            return None
        await self._lockout.succeed(work.attempts, proof.reservation)
        if proof.renewed is not None:
            await work.users.renew_password_hash(user.id, proof.renewed)
            user = replace(user, password=proof.renewed)
        return user

    async def refuse(self, proof: Proof, reason: str) -> None:
        """Audit that the correct password was not accepted; this counts neither as a failure nor as a success."""
        async with self._unit_of_work() as work:
            await self._lockout.release(work.attempts, proof.reservation)
            work.audit.record(replace(proof.attempt.event, reason=reason))

    @asynccontextmanager
    async def released_on_outage(self, proof: Proof) -> AsyncIterator[None]:
        """Release the reservation if the block raises `Unavailable`: after a correct password that is no failure."""
        try:
            yield
        except Unavailable:
            await self._release(proof.reservation)
            raise

    async def _release(self, reservation: Reservation) -> None:
        async with self._unit_of_work() as work:
            await self._lockout.release(work.attempts, reservation)

    @retry_conflicts
    async def _fail(self, attempt: Attempt, reservation: Reservation) -> None:
        async with self._unit_of_work() as work:
            await self._lockout.fail(work.attempts, reservation)
            work.audit.record(attempt.event)

    async def _renewed(self, stored: PasswordHash, password: str, client: HashingClient) -> PasswordHash | None:
        if self._hasher.is_outdated(stored):
            with suppress(Unavailable):  # the next login tries again
                return await self._hasher.hash(password, client)
        return None

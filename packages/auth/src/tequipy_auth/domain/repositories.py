"""Repositories, one for each kind of row, and the unit of work that combines them in one transaction."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, AuditRecord
from tequipy_auth.domain.entities import (
    Device,
    KeyState,
    OneTimeToken,
    RefreshToken,
    Registration,
    Session,
    SigningKey,
    User,
)
from tequipy_auth.domain.lockout import LoginAttempts
from tequipy_auth.domain.roles import Role
from tequipy_auth.domain.value_objects import Client, PasswordHash, Purpose
from tequipy_platform import UnitOfWork


class Registrations(ABC):
    """Pending registrations, whose address has not been verified."""

    @abstractmethod
    async def add(self, registration: Registration) -> None:
        """Store a registration; an address may have several."""

    @abstractmethod
    async def get(self, registration_id: UUID) -> Registration | None:
        """Return a registration, or None."""

    @abstractmethod
    async def newest_of(self, canonical_email: str, *, at: datetime) -> Registration | None:
        """Return the latest registration of an address that has not expired."""

    @abstractmethod
    async def count_pending(self, canonical_email: str, *, at: datetime) -> int:
        """Return the number of unexpired registrations of an address."""

    @abstractmethod
    async def lock(self, canonical_email: str) -> None:
        """Lock the address until the unit of work ends; other callers for the same address wait.

        This serialises a new registration with the verification of another registration of the same address.
        """

    @abstractmethod
    async def delete_for(self, canonical_email: str) -> None:
        """Delete all registrations of an address."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` registrations that expired before that time and return the number of deleted rows."""


class Users(ABC):
    """Accounts; each canonical address has at most one."""

    @abstractmethod
    async def add(self, user: User) -> None:
        """Store an account; raises `EmailTaken`, also for concurrent calls, and leaves the unit of work usable."""

    @abstractmethod
    async def get(self, user_id: UUID) -> User | None:
        """Return an account, or None."""

    @abstractmethod
    async def by_email(self, canonical_email: str) -> User | None:
        """Return the account of an address, or None."""

    @abstractmethod
    async def supersede(self, user_id: UUID, *, at: datetime) -> int | None:
        """Increment the account's version, which makes its access tokens outdated, and return the previous version.

        Returns None when the account does not exist.
        """

    @abstractmethod
    async def superseded_since(self, at: datetime) -> Mapping[UUID, tuple[int, datetime]]:
        """Return the accounts whose version was incremented after that time, with the current version and the time."""

    @abstractmethod
    async def lock(self, user_id: UUID) -> User | None:
        """Return the current account, or None, and lock its row until the unit of work ends."""

    @abstractmethod
    async def highest_password_cost(self) -> int:
        """Return the highest cost of all stored password hashes that may be checked, 0 if there are none."""

    @abstractmethod
    async def set_password(self, user_id: UUID, password: PasswordHash) -> None:
        """Set a new password and increment the password epoch, which invalidates the account's device marks."""

    @abstractmethod
    async def renew_password_hash(self, user_id: UUID, password: PasswordHash) -> None:
        """Replace the hash of an unchanged password."""

    @abstractmethod
    async def set_verified(self, user_id: UUID) -> None:
        """Mark the account's address as verified."""

    @abstractmethod
    async def set_name(self, user_id: UUID, name: str | None) -> User | None:
        """Replace the name and return the account; None if it does not exist."""


class Sessions(ABC):
    """Sessions."""

    @abstractmethod
    async def add(self, session: Session) -> None:
        """Store a session."""

    @abstractmethod
    async def get(self, session_id: UUID) -> Session | None:
        """Return a session, or None."""

    @abstractmethod
    async def touch(
        self, session_id: UUID, *, last_used_at: datetime, idle_expires_at: datetime, client: Client
    ) -> bool:
        """Record the use of a session and its client; return False if the session has been revoked.

        It is safe under concurrent calls.
        """

    @abstractmethod
    async def reauthenticate(self, session_id: UUID, *, at: datetime) -> bool:
        """Record that the user authenticated again; return False if the session has been revoked."""

    @abstractmethod
    async def revoke(self, session_id: UUID, *, at: datetime, reason: str) -> bool:
        """Revoke a session; return False if it was already revoked."""

    @abstractmethod
    async def revoke_all(self, user_id: UUID, *, keep: UUID | None = None, at: datetime, reason: str) -> Sequence[UUID]:
        """Revoke all sessions of an account except `keep`; return the ids of those that were not already revoked."""

    @abstractmethod
    async def live_of(self, user_id: UUID, *, at: datetime, beyond: int = 0) -> Sequence[Session]:
        """Return the sessions of an account that are neither revoked nor expired, the latest login first.

        The first `beyond` sessions are left out.
        """

    @abstractmethod
    async def revoked_since(self, at: datetime) -> Mapping[UUID, datetime]:
        """Return the ids of the sessions that were revoked after that time, with the time of each."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` sessions that ended before that time, with their tokens; return how many."""


class RefreshTokens(ABC):
    """Refresh tokens, which form one chain per session."""

    @abstractmethod
    async def add(self, token: RefreshToken) -> None:
        """Store a token; a parent has at most one child."""

    @abstractmethod
    async def get(self, token_id: UUID) -> RefreshToken | None:
        """Return a token, or None."""

    @abstractmethod
    async def child_of(self, token_id: UUID) -> RefreshToken | None:
        """Return the successor of a token, or None."""

    @abstractmethod
    async def claim(self, token_id: UUID, *, at: datetime) -> bool:
        """Mark a token as used; return False if it already was. Only one of several concurrent calls succeeds."""


class OneTimeTokens(ABC):
    """One-time tokens for links in mails."""

    @abstractmethod
    async def add(self, token: OneTimeToken, *, keep: int) -> None:
        """Store a token and delete all but the `keep` newest tokens of the same purpose and subject."""

    @abstractmethod
    async def consume(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Use a token and return its subject; None if the token is unknown, used, expired or has another purpose.

        All other tokens of the same purpose and subject become invalid too.
        """

    @abstractmethod
    async def peek(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Return the same as `consume` without using the token; None also when no password attempt is left."""

    @abstractmethod
    async def reserve_try(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Count one password attempt with a token and return its subject; None in the same cases as `peek`.

        Concurrent calls never count more than `TRIES_PER_TOKEN` attempts. `consume` ignores the count, because the last
        allowed attempt may be correct.
        """

    @abstractmethod
    async def release_try(self, token_id: UUID) -> None:
        """Undo the count of an attempt whose password was not checked."""

    @abstractmethod
    async def is_known(self, token_id: UUID) -> bool:
        """Return whether a token with this id is stored, independent of its purpose and state."""

    @abstractmethod
    async def discard(self, subject_id: UUID, purpose: Purpose) -> None:
        """Delete all tokens of a purpose and subject."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` tokens that expired before that time and return the number of deleted rows."""


class Devices(ABC):
    """Devices; a device mark is only valid while its device is stored."""

    @abstractmethod
    async def is_live(self, device_id: str, user_id: UUID, *, at: datetime) -> bool:
        """Return whether the account has this device and the device has not expired."""

    @abstractmethod
    async def put(self, device: Device, *, keep: int) -> None:
        """Store or update a device; besides it the account keeps its `keep - 1` most recently used devices.

        The caller holds the lock of the user's row.
        """

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` devices that expired before that time and return the number of deleted rows."""


class MailCharges(ABC):
    """Charges for mails against the budgets of addresses."""

    @abstractmethod
    async def charge(self, message_id: UUID, key: str, *, at: datetime, since: datetime, limit: int) -> bool:
        """Charge a message to a key; return False if `limit` other messages were charged to it after `since`.

        Charging a message again moves its charge to `at`. Concurrent calls never exceed `limit`.
        """

    @abstractmethod
    async def release(self, message_id: UUID) -> None:
        """Delete the charge of a message, if there is one."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` charges that were made before that time and return the number of deleted rows."""


class AuditTrail(ABC):
    """Records audit events in the transaction of the unit of work."""

    @abstractmethod
    def record(self, event: AuditEvent) -> None:
        """Append an event with the current time, an id and the correlation id; events cannot be changed."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` events from before that time, oldest first; return the number of deleted rows.

        Events of the last 7 days cannot be deleted.
        """


class AuditLog(ABC):
    """Read access to audit events."""

    @abstractmethod
    def stream(
        self, since: datetime, until: datetime, actions: Collection[AuditAction] | None = None
    ) -> AsyncIterator[AuditRecord]:
        """Iterate over the events from `since` (inclusive) to `until` (exclusive), oldest first.

        `actions` limits the result to these actions. Events are read in batches, so that memory use is bounded.
        """


class SigningKeys(ABC):
    """The signing keys, including the revoked ones."""

    @abstractmethod
    async def lock(self) -> None:
        """Lock the keys against other callers of this method until the unit of work ends."""

    @abstractmethod
    async def all(self) -> Sequence[SigningKey]:
        """Return all keys, oldest first."""

    @abstractmethod
    async def add(self, key: SigningKey) -> None:
        """Store a key."""

    @abstractmethod
    async def move(self, kid: str, state: KeyState, *, at: datetime) -> None:
        """Change the state of a key; only one key may be active. The private key of a revoked key is deleted."""

    @abstractmethod
    async def replace(self, key: SigningKey) -> None:
        """Replace the encrypted private key and the version of its key-encryption key."""


class Roles(ABC):
    """Stored roles, which add to or replace the built-in ones."""

    @abstractmethod
    async def all(self) -> Sequence[Role]:
        """Return all stored roles, sorted by name."""

    @abstractmethod
    async def put(self, role: Role) -> None:
        """Store a role and replace a stored role of the same name."""


class AuthUnitOfWork(UnitOfWork):
    """A transaction over all repositories of auth."""

    registrations: Registrations
    users: Users
    sessions: Sessions
    refresh_tokens: RefreshTokens
    one_time_tokens: OneTimeTokens
    devices: Devices
    attempts: LoginAttempts
    mail_charges: MailCharges
    audit: AuditTrail
    signing_keys: SigningKeys
    roles: Roles

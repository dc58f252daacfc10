"""What the rules keep, one repository for each kind of row, all within one unit of work."""

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
from tequipy_auth.domain.lockout import Counter, Key
from tequipy_auth.domain.roles import Role
from tequipy_auth.domain.value_objects import Client, PasswordHash, Purpose
from tequipy_platform import UnitOfWork


class Registrations(ABC):
    """Registrations that wait for their address to be verified."""

    @abstractmethod
    async def add(self, registration: Registration) -> None:
        """Keep a registration; there may be several for one address."""

    @abstractmethod
    async def get(self, registration_id: UUID) -> Registration | None:
        """Return a registration."""

    @abstractmethod
    async def newest_of(self, canonical_email: str, *, at: datetime) -> Registration | None:
        """Return the latest registration of an address that has not expired."""

    @abstractmethod
    async def count_pending(self, canonical_email: str, *, at: datetime) -> int:
        """Return how many registrations of an address have not expired."""

    @abstractmethod
    async def lock(self, canonical_email: str) -> None:
        """Make everybody else who holds this address wait until the unit of work ends.

        A new registration and the verification of another one take turns by it.
        """

    @abstractmethod
    async def delete_for(self, canonical_email: str) -> None:
        """Forget all registrations of an address."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Forget up to `limit` registrations that expired before that moment; return how many."""


class Users(ABC):
    """Accounts: one canonical address, one account."""

    @abstractmethod
    async def add(self, user: User) -> None:
        """Keep an account; raises `EmailTaken`, also under concurrent calls, and leaves the unit of work usable."""

    @abstractmethod
    async def get(self, user_id: UUID) -> User | None:
        """Return an account."""

    @abstractmethod
    async def by_email(self, canonical_email: str) -> User | None:
        """Return the account of an address."""

    @abstractmethod
    async def supersede(self, user_id: UUID, *, at: datetime) -> int | None:
        """Count the account's version up, so that running access tokens can be told apart; return the one before.

        None when there is no such account.
        """

    @abstractmethod
    async def superseded_since(self, at: datetime) -> Mapping[UUID, tuple[int, datetime]]:
        """Return the accounts whose version was counted up after that moment: the present version, and when."""

    @abstractmethod
    async def lock(self, user_id: UUID) -> User | None:
        """Return an account as it is now and hold its row until the unit of work ends, so that nobody changes it."""

    @abstractmethod
    async def highest_password_cost(self) -> int:
        """Return the highest cost of a stored password that may be checked at all, 0 where there is none."""

    @abstractmethod
    async def set_password(self, user_id: UUID, password: PasswordHash) -> None:
        """Set a new password: the account's password epoch is incremented, which voids its device marks."""

    @abstractmethod
    async def renew_password_hash(self, user_id: UUID, password: PasswordHash) -> None:
        """Replace the hash of the same password."""

    @abstractmethod
    async def set_verified(self, user_id: UUID) -> None:
        """Record that the address is the account's owner's."""

    @abstractmethod
    async def set_name(self, user_id: UUID, name: str | None) -> User | None:
        """Replace the name and return the account; None when there is none."""


class Sessions(ABC):
    """Logins."""

    @abstractmethod
    async def add(self, session: Session) -> None:
        """Keep a session."""

    @abstractmethod
    async def get(self, session_id: UUID) -> Session | None:
        """Return a session."""

    @abstractmethod
    async def touch(
        self, session_id: UUID, *, last_used_at: datetime, idle_expires_at: datetime, client: Client
    ) -> bool:
        """Record that the session was used and from where, unless it has been revoked: then False.

        Also under concurrent calls.
        """

    @abstractmethod
    async def reauthenticate(self, session_id: UUID, *, at: datetime) -> bool:
        """Record a new proof of identity, unless the session has been revoked (then False)."""

    @abstractmethod
    async def revoke(self, session_id: UUID, *, at: datetime, reason: str) -> bool:
        """End the session; False when it had ended before."""

    @abstractmethod
    async def revoke_all(self, user_id: UUID, *, keep: UUID | None = None, at: datetime, reason: str) -> Sequence[UUID]:
        """End the sessions of an account, but the one to keep; return those that had not ended before."""

    @abstractmethod
    async def live_of(self, user_id: UUID, *, at: datetime, beyond: int = 0) -> Sequence[Session]:
        """Return the sessions of an account that are neither revoked nor expired, the latest login first.

        Without the first `beyond` of them.
        """

    @abstractmethod
    async def revoked_since(self, at: datetime) -> Mapping[UUID, datetime]:
        """Return the sessions that were revoked after that moment, and when."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Forget up to `limit` sessions that ended before that moment, their tokens with them; return how many."""


class RefreshTokens(ABC):
    """The links of each session's chain."""

    @abstractmethod
    async def add(self, token: RefreshToken) -> None:
        """Keep a token; its parent has no other child."""

    @abstractmethod
    async def get(self, token_id: UUID) -> RefreshToken | None:
        """Return a token."""

    @abstractmethod
    async def child_of(self, token_id: UUID) -> RefreshToken | None:
        """Return the token that followed this one."""

    @abstractmethod
    async def claim(self, token_id: UUID, *, at: datetime) -> bool:
        """Mark the token as used, unless it is already (then False): of concurrent callers one succeeds."""


class OneTimeTokens(ABC):
    """The tokens of mailed links."""

    @abstractmethod
    async def add(self, token: OneTimeToken, *, keep: int) -> None:
        """Keep a token, and of its purpose and subject only the `keep` newest."""

    @abstractmethod
    async def consume(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Use a token up and return its subject; None when it is unknown, used, expired or for another purpose.

        All other tokens of the same purpose and subject die with it.
        """

    @abstractmethod
    async def peek(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Return what `consume` would, without using anything up; None also when its tries are used up."""

    @abstractmethod
    async def reserve_try(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Count one try of a password with a token and return its subject; None as `peek`.

        Of any number at once no more than `TRIES_PER_TOKEN` are counted. `consume` does not look at tries: the last one
        may be the right one.
        """

    @abstractmethod
    async def release_try(self, token_id: UUID) -> None:
        """Take one try back: the password was not looked at."""

    @abstractmethod
    async def is_known(self, token_id: UUID) -> bool:
        """Tell whether a token of this id is kept, whatever its purpose and state: good, used or expired."""

    @abstractmethod
    async def discard(self, subject_id: UUID, purpose: Purpose) -> None:
        """Let every token of a purpose and a subject die."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Forget up to `limit` tokens that expired before that moment; return how many."""


class Devices(ABC):
    """The devices whose marks are valid as far as their number goes."""

    @abstractmethod
    async def is_live(self, device_id: str, user_id: UUID, *, at: datetime) -> bool:
        """Return whether the account still has this device, and it has not expired."""

    @abstractmethod
    async def put(self, device: Device, *, keep: int) -> None:
        """Add or renew a device; beside it the account keeps the `keep - 1` that were used most recently.

        The caller holds the lock of the user's row.
        """

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` devices that expired before that moment; return how many."""


class LoginAttempts(ABC):
    """The counters of failed attempts; what they mean is for `lockout` to say."""

    @abstractmethod
    async def lock(self, keys: Collection[Key]) -> Mapping[Key, Counter]:
        """Return the counter of every key, an empty one for a new key.

        Nobody else gets any of them until the unit of work ends: of concurrent callers one is first.
        """

    @abstractmethod
    async def save(self, counters: Mapping[Key, Counter]) -> None:
        """Replace the counters of keys that are held."""

    @abstractmethod
    async def delete(self, keys: Collection[Key]) -> None:
        """Drop the counters of these keys."""

    @abstractmethod
    async def delete_for_account(self, account: str, *, also_lock: Collection[Key] = ()) -> None:
        """Drop every counter of an account: from each client address and device, and from anywhere.

        The rows of `also_lock` are locked together with them, in one order, so that no concurrent attempt causes a
        deadlock: the unit of work may lock these keys again afterwards.
        """

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Drop up to `limit` counters that died before that moment; return how many."""


class MailCharges(ABC):
    """Which mails were sent, or are being sent, for the budgets of addresses."""

    @abstractmethod
    async def charge(self, message_id: UUID, key: str, *, at: datetime, since: datetime, limit: int) -> bool:
        """Charge a message to a key, unless `limit` others were charged to it after `since`: then return False.

        A message that was charged before moves to `at`. Of concurrent callers no more than `limit` succeed.
        """

    @abstractmethod
    async def release(self, message_id: UUID) -> None:
        """Take the charge of a message back, if there is one."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Forget up to `limit` charges made before that moment; return how many."""


class AuditTrail(ABC):
    """Where a unit of work records what it does: the record commits with it, or not at all."""

    @abstractmethod
    def record(self, event: AuditEvent) -> None:
        """Append an event; time, id and correlation id are added. There is no way to change one."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Forget up to `limit` events from before that moment, the oldest first; return how many.

        Events of the last 7 days cannot be forgotten.
        """


class AuditLog(ABC):
    """The audit as others read it."""

    @abstractmethod
    def stream(
        self, since: datetime, until: datetime, actions: Collection[AuditAction] | None = None
    ) -> AsyncIterator[AuditRecord]:
        """Go through what happened from `since` (inclusive) to `until` (exclusive), oldest first.

        With `actions` only through those. It is read in batches: a long one is never held in memory.
        """


class SigningKeys(ABC):
    """The keys that sign access tokens, the revoked ones included."""

    @abstractmethod
    async def lock(self) -> None:
        """Hold off everybody else who calls this until the unit of work ends: one changes keys at a time."""

    @abstractmethod
    async def all(self) -> Sequence[SigningKey]:
        """Return every key, the oldest first."""

    @abstractmethod
    async def add(self, key: SigningKey) -> None:
        """Keep a key."""

    @abstractmethod
    async def move(self, kid: str, state: KeyState, *, at: datetime) -> None:
        """Put a key into another state; only one may be active at a time. A revoked key's private half is erased."""

    @abstractmethod
    async def replace(self, key: SigningKey) -> None:
        """Replace the encrypted private half of a key, and the version that it is encrypted under."""


class Roles(ABC):
    """What roles permit, where that is not as built in."""

    @abstractmethod
    async def all(self) -> Sequence[Role]:
        """Return every stored role, in the order of their names."""

    @abstractmethod
    async def put(self, role: Role) -> None:
        """Keep a role, in the place of the one of its name."""


class AuthUnitOfWork(UnitOfWork):
    """One transaction over everything that auth keeps."""

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

"""Repositories of accounts: registrations, users and roles."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.entities import EmailChange, EmailChangeState, Registration, User, UserStatus
from tequipy_auth.domain.roles import Role
from tequipy_auth.domain.value_objects import EmailAddress, PasswordHash
from tequipy_platform import Page, PageRequest


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which accounts to return; None does not restrict them."""

    text: str | None = None
    """The beginning of the address, or a part of the name; upper and lower case are alike."""
    status: UserStatus | None = None
    role: str | None = None


class Registrations(ABC):
    """Pending registrations, whose address has not been verified."""

    @abstractmethod
    async def add(self, registration: Registration) -> None:
        """Store a registration; an address may have several."""

    @abstractmethod
    async def get(self, registration_id: UUID) -> Registration | None:
        """Return a registration, or None."""

    @abstractmethod
    async def all_of(self, canonical_email: str) -> Sequence[Registration]:
        """Return all registrations of an address, expired or not, the latest first."""

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
        """Store an account; raises `EmailTaken`, also for concurrent calls, and leaves the unit of work usable.

        An address that can be restored to another account (`EmailChanges.is_restorable`) is taken.
        """

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
    async def set_email(self, user_id: UUID, email: EmailAddress, *, at: datetime) -> User | None:
        """Replace the address, mark it as verified and return the account; None if it does not exist.

        Raises `EmailTaken` in the same cases as `add`, and leaves the unit of work usable.
        """

    @abstractmethod
    async def set_name(self, user_id: UUID, name: str | None) -> User | None:
        """Replace the name and return the account; None if it does not exist."""

    @abstractmethod
    async def set_roles(self, user_id: UUID, roles: tuple[str, ...]) -> None:
        """Replace the roles."""

    @abstractmethod
    async def set_status(self, user_id: UUID, status: UserStatus, *, erase_at: datetime | None = None) -> None:
        """Set the status, and the time of the erasure of an account that is being deleted."""

    @abstractmethod
    async def lock_administrators(self) -> None:
        """Lock the set of administrators until the unit of work ends; other callers wait.

        Without it, two administrators who demote each other at once would both be allowed to. Call it before `lock`.
        """

    @abstractmethod
    async def has_other_administrator(self, user_id: UUID) -> bool:
        """Return whether an active account other than this one has the role `admin`."""

    @abstractmethod
    async def any_has_role(self, role: str) -> bool:
        """Return whether an account has the role."""

    @abstractmethod
    async def due_for_erasure(self, *, at: datetime, limit: int) -> Sequence[UUID]:
        """Return up to `limit` accounts whose erasure is due."""

    @abstractmethod
    async def erase(self, user_id: UUID) -> None:
        """Delete an account with its sessions, refresh tokens and devices."""

    @abstractmethod
    async def page(self, request: PageRequest, wanted: UserFilter) -> Page[User]:
        """Return a page of the wanted accounts, the newest first."""


class EmailChanges(ABC):
    """Changes of address that can still be undone; the caller holds the lock of the account's row."""

    @abstractmethod
    async def add(self, change: EmailChange) -> None:
        """Store a change."""

    @abstractmethod
    async def get(self, change_id: UUID) -> EmailChange | None:
        """Return a change, or None."""

    @abstractmethod
    async def of(self, user_id: UUID) -> Sequence[EmailChange]:
        """Return all stored changes of an account, the latest first."""

    @abstractmethod
    async def set_state(self, change_id: UUID, state: EmailChangeState) -> None:
        """Set the state of a change."""

    @abstractmethod
    async def close_pending(self, user_id: UUID, *, keep: int = 0) -> None:
        """Close the pending changes of an account except the `keep` latest."""

    @abstractmethod
    async def delete(self, change_id: UUID) -> None:
        """Delete a change."""

    @abstractmethod
    async def is_restorable(self, canonical_email: str, *, at: datetime, to_other_than: UUID | None = None) -> bool:
        """Return whether the undo of a confirmed change can restore the address to an account.

        `to_other_than` is an account that does not count.
        """

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` changes that could be undone until before that time; return the number."""


class Roles(ABC):
    """Stored roles, which add to or replace the built-in ones."""

    @abstractmethod
    async def all(self) -> Sequence[Role]:
        """Return all stored roles, sorted by name."""

    @abstractmethod
    async def put(self, role: Role) -> None:
        """Store a role and replace a stored role of the same name."""

    @abstractmethod
    async def delete(self, name: str) -> bool:
        """Delete a stored role; return whether there was one."""

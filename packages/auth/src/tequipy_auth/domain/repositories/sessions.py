"""Repositories of sessions: their refresh tokens, and the devices that have logged in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from uuid import UUID

from tequipy_auth.domain.entities import Device, RefreshToken, Session, User
from tequipy_auth.domain.value_objects import Client


class Sessions(ABC):
    """Sessions."""

    @abstractmethod
    async def add(self, session: Session) -> None:
        """Store a session."""

    @abstractmethod
    async def get(self, session_id: UUID) -> Session | None:
        """Return a session, or None."""

    @abstractmethod
    async def replace(self, session_id: UUID, *, by: UUID, at: datetime) -> bool:
        """End a session that another one replaces; return False if it has been revoked.

        It is safe under concurrent calls.
        """

    @abstractmethod
    async def revoke(self, session_id: UUID, *, at: datetime, reason: str) -> bool:
        """Revoke a session; return False if it was already revoked."""

    @abstractmethod
    async def revoke_all(self, user_id: UUID, *, keep: UUID | None = None, at: datetime, reason: str) -> Sequence[UUID]:
        """Revoke all sessions of an account except `keep`; return the ids of those that were not already revoked."""

    @abstractmethod
    async def live_of(self, user_id: UUID, *, at: datetime) -> Sequence[Session]:
        """Return the sessions of an account that are neither revoked nor expired, the latest login first."""

    @abstractmethod
    async def all_of(self, user_id: UUID) -> Sequence[Session]:
        """Return all stored sessions of an account, also those that have ended, the latest login first."""

    @abstractmethod
    async def revoked_since(self, at: datetime) -> Mapping[UUID, datetime]:
        """Return the ids of the sessions that were revoked after that time, with the time of each."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` sessions that ended before that time, with their tokens; return how many."""


class RotationOutcome(Enum):
    """The outcome of `RefreshTokens.rotate`."""

    ROTATED = "rotated"
    USED = "used"
    """The parent has been used before, or does not exist."""
    REVOKED = "revoked"
    """The session has been revoked."""


class RefreshTokens(ABC):
    """Refresh tokens, which form one chain per session."""

    @abstractmethod
    async def add(self, token: RefreshToken) -> None:
        """Store a token; a parent has at most one child."""

    @abstractmethod
    async def start(self, session: Session, token: RefreshToken) -> int:
        """Store a new session with its first token, and the time of its account's latest login.

        Returns how many other live sessions the account has; the caller holds the lock of its row.
        """

    @abstractmethod
    async def get(self, token_id: UUID) -> RefreshToken | None:
        """Return a token, or None."""

    @abstractmethod
    async def child_of(self, token_id: UUID) -> RefreshToken | None:
        """Return the successor of a token, or None."""

    @abstractmethod
    async def with_owner(self, token_id: UUID) -> tuple[RefreshToken, Session, User] | None:
        """Return a token with its session and account, or None if one of them is missing."""

    @abstractmethod
    async def rotate(
        self, child: RefreshToken, *, at: datetime, idle_expires_at: datetime, client: Client
    ) -> RotationOutcome:
        """Mark the parent of `child` as used, store the child, and record the use of their session and its client.

        Nothing but the parent is changed if the session has been revoked, so the caller must roll back. Only one of
        several concurrent calls for one parent succeeds; the others wait until it has committed.
        """


class Devices(ABC):
    """Devices; a device mark is only valid while its device is stored."""

    @abstractmethod
    async def is_live(self, device_id: str, user_id: UUID, *, at: datetime) -> bool:
        """Return whether the account has this device and the device has not expired."""

    @abstractmethod
    async def all_of(self, user_id: UUID) -> Sequence[Device]:
        """Return all stored devices of an account, the one that was used last first."""

    @abstractmethod
    async def put(self, device: Device, *, keep: int) -> None:
        """Store or update a device; besides it the account keeps its `keep - 1` most recently used devices.

        The caller holds the lock of the user's row.
        """

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` devices that expired before that time and return the number of deleted rows."""

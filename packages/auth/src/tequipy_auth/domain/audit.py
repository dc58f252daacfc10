"""Audit events: who did what to which account, with what outcome, and from where."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from tequipy_auth.domain.value_objects import Client
from tequipy_platform import JSON


class AuditAction(StrEnum):
    """The operation that was performed or attempted."""

    REGISTERED = "registered"
    VERIFIED = "verified"
    LOGIN_OK = "login_ok"
    LOGIN_FAILED = "login_failed"
    LOGIN_LOCKED = "login_locked"
    TOKEN_REFRESHED = "token_refreshed"  # noqa: S105 -- the name of an action, not a secret
    REFRESH_REPLAYED = "refresh_replayed"
    REFRESH_REUSE_DETECTED = "refresh_reuse_detected"
    LOGOUT = "logout"
    SESSION_REVOKED = "session_revoked"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 -- the name of an action, not a secret
    RESET_REQUESTED = "reset_requested"
    RESET_DONE = "reset_done"
    EMAIL_CHANGE_REQUESTED = "email_change_requested"
    EMAIL_CHANGED = "email_changed"
    EMAIL_CHANGE_UNDONE = "email_change_undone"
    ROLE_CHANGED = "role_changed"
    USER_DISABLED = "user_disabled"
    USER_ENABLED = "user_enabled"
    USER_UNLOCKED = "user_unlocked"
    DELETION_REQUESTED = "deletion_requested"
    ACCOUNT_ERASED = "account_erased"
    USER_INVITED = "user_invited"
    INVITATION_DELETED = "invitation_deleted"
    KEY_ROTATED = "key_rotated"


class Outcome(StrEnum):
    """Whether the operation succeeded."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An operation that was performed or attempted.

    `metadata` contains no secrets and no e-mail addresses, at most the pseudonym of an address.
    """

    action: AuditAction | str
    """An `AuditAction`; in a stored event also the action of a newer release."""
    outcome: Outcome | str = Outcome.SUCCESS
    reason: str | None = None
    """The reason for the operation or for its failure: a stable snake_case code."""
    actor_id: UUID | None = None
    """The account that performed the operation; None for an unknown person or the operator."""
    subject_id: UUID | None = None
    """The account that was affected."""
    session_id: UUID | None = None
    client: Client = field(default_factory=Client)
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events to return; None does not restrict them."""

    subject_id: UUID | None = None
    """The account that was affected."""
    action: str | None = None
    since: datetime | None = None
    """The earliest time."""
    until: datetime | None = None
    """The end, exclusive."""
    account_id: UUID | None = None
    """The account that was affected or has performed the operation."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A stored event, with its time and the correlation id of the request that caused it."""

    id: UUID
    at: datetime
    correlation_id: str | None
    event: AuditEvent

    def as_seen_by(self, user_id: UUID) -> "AuditRecord":
        """Return the record as its owner may see it: without the client of another account that caused the event."""
        if self.event.actor_id in {None, user_id}:
            return self
        return replace(self, event=replace(self.event, client=Client()))

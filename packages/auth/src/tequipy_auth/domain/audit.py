"""What the audit keeps: who did what to whom, how it ended, and from where."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from tequipy_auth.domain.value_objects import Client
from tequipy_platform import JSON


class AuditAction(StrEnum):
    """What was done, or tried."""

    REGISTERED = "registered"
    VERIFIED = "verified"
    LOGIN_OK = "login_ok"
    LOGIN_FAILED = "login_failed"
    LOGIN_LOCKED = "login_locked"
    TOKEN_REFRESHED = "token_refreshed"  # noqa: S105 -- the name of an action, no secret
    REFRESH_REPLAYED = "refresh_replayed"
    REFRESH_REUSE_DETECTED = "refresh_reuse_detected"
    LOGOUT = "logout"
    SESSION_REVOKED = "session_revoked"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 -- as above
    RESET_REQUESTED = "reset_requested"
    RESET_DONE = "reset_done"
    ROLE_CHANGED = "role_changed"
    KEY_ROTATED = "key_rotated"


class Outcome(StrEnum):
    """How it ended."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that was done or tried; `metadata` holds no secret and no address (an address's pseudonym at most)."""

    action: AuditAction
    outcome: Outcome = Outcome.SUCCESS
    reason: str | None = None
    """Why it failed or happened: stable, snake_case."""
    actor_id: UUID | None = None
    """The account that did it; None: nobody who is known, or the operator."""
    subject_id: UUID | None = None
    """The account it was done to."""
    session_id: UUID | None = None
    client: Client = field(default_factory=Client)
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An event as it was kept: when, and as part of which request."""

    id: UUID
    at: datetime
    correlation_id: str | None
    event: AuditEvent

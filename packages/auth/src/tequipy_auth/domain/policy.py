"""Durations and limits that the business rules use."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final, Literal

MIN_PASSWORD_LENGTH: Final = 12
"""The minimum length; the bundled list of common passwords contains nothing shorter."""

MIN_AUDIT_RETENTION: Final = timedelta(days=7)
"""The minimum retention, which the database enforces: an attacker who controls a process cannot purge recent events."""

LEEWAY: Final = timedelta(seconds=30)
"""How much the clocks of two machines may differ without invalidating a token (`nbf`)."""

REGISTRATION_TTL: Final = timedelta(days=2)
"""How long a registration stays pending; no link for it is valid longer than that."""

INVITATION_TTL: Final = timedelta(days=7)
"""How long an invitation can be accepted."""

RegistrationMode = Literal["private", "open", "invite"]
"""Who can get an account by registering: see `AuthSettings.registration_mode`."""

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)
_CENTURY: Final = 100 * 365 * _DAY
"""The maximum duration, so that the current time plus or minus it is a valid date."""


def _bounds(least: object, most: object | None = _CENTURY) -> Mapping[str, Any]:
    """Return the bounds of a field under the keys that pydantic reads from a dataclass."""
    return {"ge": least} if most is None else {"ge": least, "le": most}


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """Lifetimes and limits; the section `policy` of `AuthSettings`, which reports values out of bounds by name."""

    access_token_ttl: timedelta = field(default=15 * _MINUTE, metadata=_bounds(_SECOND))
    """How long an access token is valid; a revocation takes effect at once nevertheless."""
    jwks_max_age: timedelta = field(default=5 * _MINUTE, metadata=_bounds(_SECOND))
    """How long clients may cache the published keys; a key is published for this long before it signs."""
    refresh_idle: timedelta = field(default=7 * _DAY, metadata=_bounds(_SECOND))
    """How long after its latest refresh a session ends."""
    refresh_absolute: timedelta = field(default=30 * _DAY, metadata=_bounds(_SECOND))
    """How long after its login a session ends, however often it is refreshed."""
    refresh_grace: timedelta = field(default=_MINUTE, metadata=_bounds(timedelta(0)))
    """How long after its first use a refresh token returns its unused successor again."""
    sessions_per_user: int = field(default=20, metadata=_bounds(1, None))
    """The maximum number of sessions per user; a further login ends the oldest one."""
    verify_email_ttl: timedelta = field(default=_DAY, metadata=_bounds(_MINUTE, REGISTRATION_TTL))
    """How long the link that verifies an address is valid."""
    reset_password_ttl: timedelta = field(default=30 * _MINUTE, metadata=_bounds(_MINUTE))
    """How long the link that resets a password is valid."""
    confirm_email_ttl: timedelta = field(default=60 * _MINUTE, metadata=_bounds(_MINUTE))
    """How long the link that confirms a new address is valid."""
    undo_email_ttl: timedelta = field(default=7 * _DAY, metadata=_bounds(_DAY))
    """How long a change of address can be undone; no other account can get the earlier address until then."""
    end_session_ttl: timedelta = field(default=7 * _DAY, metadata=_bounds(_MINUTE))
    """How long the link in the mail about a sign-in ends the session."""
    live_tokens_per_purpose: int = field(default=3, metadata=_bounds(1, None))
    """The maximum number of valid links per purpose and subject; a further link invalidates the oldest."""
    mails_per_hour: int = field(default=5, metadata=_bounds(1, None))
    """How many mails per hour can be sent to one address for one purpose (registration, another link, reset, change
    of address), and how many changes of its address an account can request."""
    fresh_for: timedelta = field(default=5 * _MINUTE, metadata=_bounds(_SECOND))
    """How long after authentication sensitive operations are allowed."""
    password_min_length: int = field(default=MIN_PASSWORD_LENGTH, metadata=_bounds(MIN_PASSWORD_LENGTH, 64))
    """The minimum number of characters of a new password after normalisation (OWASP ASVS 5.0, V6.2.1)."""
    password_max_length: int = field(default=128, metadata=_bounds(64, 1024))
    """The maximum number of characters of a password after normalisation (OWASP ASVS 5.0, V6.2.9)."""
    audit_retention: timedelta = field(default=400 * _DAY, metadata=_bounds(MIN_AUDIT_RETENTION))
    """How long audit events are kept."""

    erasure_delay: timedelta = field(default=7 * _DAY, metadata=_bounds(timedelta(0)))
    """How long after its owner has deleted it an account is erased; until then an administrator can enable it again."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a value out of bounds."""
        for each in fields(self):
            value, least, most = getattr(self, each.name), each.metadata["ge"], each.metadata.get("le")
            if value < least or (most is not None and value > most):
                raise ValueError(f"{each.name} is at least {least}{'' if most is None else f' and at most {most}'}")

    @property
    def revocation_ttl(self) -> timedelta:
        """How long a revocation must be stored: until the last access token that it affects expires."""
        return self.access_token_ttl + LEEWAY

    @property
    def key_ring_max_age(self) -> timedelta:
        """The maximum age of the signing keys in memory, so that every process knows a next key before it signs."""
        return min(timedelta(minutes=1), self.jwks_max_age / 2)

    @property
    def key_retirement(self) -> timedelta:
        """How long a retiring key stays published: other processes sign with it until they reload."""
        return self.revocation_ttl + self.key_ring_max_age

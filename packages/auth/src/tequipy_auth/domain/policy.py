"""Durations and limits that the business rules use."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

MIN_PASSWORD_LENGTH: Final = 12
"""The minimum length; the bundled list of common passwords contains nothing shorter."""

MIN_AUDIT_RETENTION: Final = timedelta(days=7)
"""The minimum retention, which the database enforces: an attacker who controls a process cannot purge recent events."""

LEEWAY: Final = timedelta(seconds=30)
"""The maximum difference between the clocks of two machines."""


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """Lifetimes, limits and the URL for links in mails; created from `AuthSettings`."""

    public_url: str
    """The public URL of the app, without a trailing slash."""
    access_token_ttl: timedelta = timedelta(minutes=15)
    jwks_max_age: timedelta = timedelta(minutes=5)
    """How long clients may cache the published keys; a key is published for this long before it signs."""
    refresh_idle: timedelta = timedelta(days=7)
    refresh_absolute: timedelta = timedelta(days=30)
    refresh_grace: timedelta = timedelta(seconds=60)
    sessions_per_user: int = 20
    verify_email_ttl: timedelta = timedelta(hours=24)
    live_tokens_per_purpose: int = 3
    mails_per_hour: int = 5
    """How many mails can be sent to one address per hour for one purpose."""
    reset_password_ttl: timedelta = timedelta(minutes=30)
    fresh_for: timedelta = timedelta(minutes=5)
    """How long after authentication sensitive operations are allowed."""
    open_registration: bool = False
    """True: registering creates an unverified account. False (private): verifying the address creates the account."""
    password_min_length: int = MIN_PASSWORD_LENGTH
    password_max_length: int = 128
    audit_retention: timedelta = timedelta(days=400)
    """How long audit events are retained."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for values below the minimum; `AuthSettings` reports them by name before."""
        if self.password_min_length < MIN_PASSWORD_LENGTH:
            raise ValueError(f"password_min_length is at least {MIN_PASSWORD_LENGTH}")
        if self.audit_retention < MIN_AUDIT_RETENTION:
            raise ValueError(f"audit_retention is at least {MIN_AUDIT_RETENTION.days} days")

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

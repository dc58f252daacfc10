"""The numbers that the rules go by."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

MIN_PASSWORD_LENGTH: Final = 12
"""The bundled list of common passwords holds none that is shorter."""

MIN_AUDIT_RETENTION: Final = timedelta(days=7)
"""The database refuses to purge younger events: whoever takes over a process cannot remove their own traces by it."""

LEEWAY: Final = timedelta(seconds=30)
"""How far the clocks of two machines may differ."""


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """How long things live and where the links in mails lead; made from `AuthSettings`."""

    public_url: str
    """Without a slash at its end."""
    access_token_ttl: timedelta = timedelta(minutes=15)
    jwks_max_age: timedelta = timedelta(minutes=5)
    """How long others may keep the published keys: so long a key is published before its first use."""
    refresh_idle: timedelta = timedelta(days=7)
    refresh_absolute: timedelta = timedelta(days=30)
    refresh_grace: timedelta = timedelta(seconds=60)
    sessions_per_user: int = 20
    verify_email_ttl: timedelta = timedelta(hours=24)
    live_tokens_per_purpose: int = 3
    mails_per_hour: int = 5
    """How many mails anybody can have sent to one address for one purpose."""
    reset_password_ttl: timedelta = timedelta(minutes=30)
    fresh_for: timedelta = timedelta(minutes=5)
    """How long after a proof of identity sensitive operations may be asked for."""
    open_registration: bool = False
    """Accounts exist at once, unverified; otherwise they come into being by the mailed token (private)."""
    password_min_length: int = MIN_PASSWORD_LENGTH
    password_max_length: int = 128
    audit_retention: timedelta = timedelta(days=400)
    """How long audit events are kept."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for what would break a promise; `AuthSettings` refuses it by name before."""
        if self.password_min_length < MIN_PASSWORD_LENGTH:
            raise ValueError(f"password_min_length is at least {MIN_PASSWORD_LENGTH}")
        if self.audit_retention < MIN_AUDIT_RETENTION:
            raise ValueError(f"audit_retention is at least {MIN_AUDIT_RETENTION.days} days")

    @property
    def revocation_ttl(self) -> timedelta:
        """How long a revocation must be remembered: until the last access token it touches has expired everywhere."""
        return self.access_token_ttl + LEEWAY

    @property
    def key_ring_max_age(self) -> timedelta:
        """How old the signing keys that a process holds may become: it knows a next key before that is used."""
        return min(timedelta(minutes=1), self.jwks_max_age / 2)

    @property
    def key_retirement(self) -> timedelta:
        """How long a key that signs no more is published: a process may sign with it until it looks again."""
        return self.revocation_ttl + self.key_ring_max_age

"""The numbers and the roles that the rules go by."""

from dataclasses import dataclass
from datetime import timedelta

ROLES: dict[str, tuple[str, ...]] = {
    "user": (),
    "support": ("audit:read", "reports:read", "users:read"),
    "admin": ("audit:read", "reports:read", "reports:write", "users:read", "users:write"),
}
"""Which permissions each role carries."""


def permissions_of(roles: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the roles permit together, sorted; an unknown role permits nothing."""
    return tuple(sorted({permission for role in roles for permission in ROLES.get(role, ())}))


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """How long things live and where the links in mails lead; made from `AuthSettings`."""

    public_url: str
    """Without a slash at its end."""
    access_token_ttl: timedelta = timedelta(minutes=15)
    refresh_idle: timedelta = timedelta(days=7)
    refresh_absolute: timedelta = timedelta(days=30)
    refresh_grace: timedelta = timedelta(seconds=60)
    verify_email_ttl: timedelta = timedelta(hours=24)
    live_tokens_per_purpose: int = 3
    password_min_length: int = 12
    password_max_length: int = 128

"""Things with identity: users, pending registrations, sessions and their tokens, signing keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final
from uuid import UUID

from tequipy_auth.domain.value_objects import Client, EmailAddress, PasswordHash, Purpose


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration whose address is not verified yet: no account, so nobody can pre-register another's address."""

    id: UUID
    email: EmailAddress
    name: str | None
    password: PasswordHash
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """An account; `version` grows when what its running access tokens say is no longer true."""

    id: UUID
    email: EmailAddress
    email_verified: bool
    name: str | None
    password: PasswordHash
    roles: tuple[str, ...]
    created_at: datetime
    version: int = 1
    password_epoch: int = 0
    """How often the password was set anew; device marks of an earlier epoch are void."""


@dataclass(frozen=True, slots=True)
class Session:
    """A login and the family of refresh tokens that descends from it; `id` is the `sid` of access tokens."""

    id: UUID
    user_id: UUID
    client: Client
    amr: tuple[str, ...]
    auth_time: datetime
    created_at: datetime
    last_used_at: datetime
    idle_expires_at: datetime
    absolute_expires_at: datetime
    revoked_at: datetime | None = None
    last_client: Client | None = None
    """Where its latest refresh came from; None: it was not refreshed yet."""

    @property
    def expires_at(self) -> datetime:
        """The earlier of the idle and the absolute end."""
        return min(self.idle_expires_at, self.absolute_expires_at)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One link of a session's chain; `used_at`: when its child was made, `key_version`: which server key derived it."""

    id: UUID
    session_id: UUID
    parent_id: UUID | None
    secret_hash: str = field(repr=False)
    key_version: int
    created_at: datetime
    used_at: datetime | None = None


TRIES_PER_TOKEN: Final = 5
"""How many passwords may be tried with one mailed token."""


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A mailed token; `subject_id` is the row it is about (a registration, a user)."""

    id: UUID
    purpose: Purpose
    subject_id: UUID
    secret_hash: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    tries: int = 0
    """How many passwords have been tried with it."""


@dataclass(frozen=True, slots=True)
class Device:
    """A client that has logged in to an account, as its device mark names it."""

    id: str
    user_id: UUID
    last_used_at: datetime
    expires_at: datetime


class KeyState(Enum):
    """Where a signing key stands in its life; each state is left for a later one, never for an earlier."""

    NEXT = "next"
    """Published, so that everybody knows it before the first token that it signs."""
    ACTIVE = "active"
    """Signs. There is exactly one."""
    RETIRING = "retiring"
    """Signs no more; published until the last token that it signed has expired."""
    REVOKED = "revoked"
    """Verifies nothing any more."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair that signs access tokens; `kid` is its thumbprint (RFC 7638).

    `private_key` is encrypted under the key-encryption key of `encryption_version`, and empty once the key is revoked.
    The version is None in rows from before these keys had versions, which `KeyService.reencrypt` renews.
    """

    kid: str
    algorithm: str
    state: KeyState
    public_jwk: Mapping[str, str]
    private_key: bytes = field(repr=False)
    encryption_version: int | None
    created_at: datetime
    state_changed_at: datetime

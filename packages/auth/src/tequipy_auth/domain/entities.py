"""Entities: users, pending registrations, invitations, sessions and their tokens, devices and signing keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final
from uuid import UUID

from tequipy_auth.domain.value_objects import Client, EmailAddress, PasswordHash, Purpose


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration whose address is not verified yet.

    It is not an account, so nobody can occupy another person's address by registering it first.
    """

    id: UUID
    email: EmailAddress
    name: str | None
    password: PasswordHash
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation to an account with these roles, which has not been accepted."""

    id: UUID
    email: EmailAddress
    roles: tuple[str, ...]
    invited_by: UUID
    """The account of the administrator."""
    created_at: datetime
    expires_at: datetime


class UserStatus(Enum):
    """Whether an account can be used."""

    ACTIVE = "active"
    DISABLED = "disabled"
    """An administrator has disabled it."""
    DELETING = "deleting"
    """Its owner has deleted it; it is erased at `erase_at`."""


@dataclass(frozen=True, slots=True)
class User:
    """An account; `version` is incremented when its issued access tokens become outdated."""

    id: UUID
    email: EmailAddress
    email_verified: bool
    name: str | None
    password: PasswordHash
    roles: tuple[str, ...]
    created_at: datetime
    version: int = 1
    password_epoch: int = 0
    """How many times the password has been replaced; device marks of an earlier epoch are invalid."""
    status: UserStatus = UserStatus.ACTIVE
    erase_at: datetime | None = None
    last_login_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A login and all refresh tokens that descend from it; `id` is the `sid` claim of its access tokens."""

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
    """The client of the latest refresh; None if the session has not been refreshed."""
    replaced_by: UUID | None = None
    """The session that replaced this one when its user authenticated again."""

    @property
    def expires_at(self) -> datetime:
        """The earlier of the idle expiry and the absolute expiry."""
        return min(self.idle_expires_at, self.absolute_expires_at)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token of a session.

    `used_at` is the time at which it was exchanged for its successor; `key_version` is the version of the server key
    from which the token itself was derived.
    """

    id: UUID
    session_id: UUID
    parent_id: UUID | None
    secret_hash: str = field(repr=False)
    key_version: int
    created_at: datetime
    used_at: datetime | None = None


class EmailChangeState(Enum):
    """How far a change of address has come."""

    PENDING = "pending"
    """Requested: the link that was mailed to the new address confirms it."""
    CONFIRMED = "confirmed"
    """Confirmed: the account got the new address."""
    CLOSED = "closed"
    """It cannot be confirmed any more, because another change was confirmed or requested, or the password changed."""


@dataclass(frozen=True, slots=True)
class EmailChange:
    """A requested change of an account's address, kept until it can no longer be undone.

    An undone change is deleted together with all later ones of the account.
    """

    id: UUID
    user_id: UUID
    number: int
    """The position among the changes of the account; clocks of several processes give no reliable order."""
    old: EmailAddress
    new: EmailAddress
    requested_at: datetime
    undo_until: datetime
    state: EmailChangeState = EmailChangeState.PENDING


TRIES_PER_TOKEN: Final = 5
"""How many password attempts are allowed with one mailed token."""


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A token sent by mail; `subject_id` is the id of its registration, invitation, user or change of address."""

    id: UUID
    purpose: Purpose
    subject_id: UUID
    secret_hash: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    tries: int = 0
    """How many password attempts have been made with it."""


@dataclass(frozen=True, slots=True)
class Device:
    """A client that has logged in to an account; its device mark contains `id`."""

    id: str
    user_id: UUID
    last_used_at: datetime
    expires_at: datetime


class KeyState(Enum):
    """The state of a signing key; a key only moves to later states."""

    NEXT = "next"
    """Published, but not used for signing yet, so that verifiers know the key before they see its first token."""
    ACTIVE = "active"
    """Signs tokens; there is exactly one active key."""
    RETIRING = "retiring"
    """No longer signs; published until the last token that it signed has expired."""
    REVOKED = "revoked"
    """No longer verifies any token."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair that signs access tokens; `kid` is its thumbprint (RFC 7638).

    `private_key` is encrypted with the key-encryption key of `encryption_version`, and empty once the key is revoked.
    The version is None in rows that were written before key-encryption keys had versions; `KeyService.reencrypt`
    updates them.
    """

    kid: str
    algorithm: str
    state: KeyState
    public_jwk: Mapping[str, str]
    private_key: bytes = field(repr=False)
    encryption_version: int | None
    created_at: datetime
    state_changed_at: datetime

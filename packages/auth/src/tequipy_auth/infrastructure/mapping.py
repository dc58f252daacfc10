"""Conversion between database rows and entities."""

from collections.abc import Mapping
from typing import Any

from tequipy_auth.domain.entities import (
    EmailChange,
    EmailChangeState,
    Invitation,
    KeyState,
    RefreshToken,
    Registration,
    Session,
    SigningKey,
    User,
    UserStatus,
)
from tequipy_auth.domain.value_objects import Client, EmailAddress, PasswordHash
from tequipy_auth.infrastructure.models import (
    EmailChangeRow,
    InvitationRow,
    PasswordColumns,
    RefreshTokenRow,
    RegistrationRow,
    SessionRow,
    SigningKeyRow,
    UserRow,
)


def password_columns(password: PasswordHash) -> Mapping[str, Any]:
    """Return the columns for a password hash."""
    return {
        "password_scheme": password.scheme,
        "password_cost": password.cost,
        "password_pepper_version": password.pepper_version,
        "password_digest": password.digest,
    }


def _password(row: PasswordColumns) -> PasswordHash:
    return PasswordHash(row.password_scheme, row.password_cost, row.password_pepper_version, row.password_digest)


def registration_of(row: RegistrationRow) -> Registration:
    """Return the registration of a row."""
    return Registration(
        id=row.id,
        email=EmailAddress(row.email, row.canonical_email),
        name=row.name,
        password=_password(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def invitation_of(row: InvitationRow) -> Invitation:
    """Return the invitation of a row."""
    return Invitation(
        id=row.id,
        email=EmailAddress(row.email, row.canonical_email),
        roles=row.roles,
        invited_by=row.invited_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def user_of(row: UserRow) -> User:
    """Return the account of a row."""
    return User(
        id=row.id,
        email=EmailAddress(row.email, row.canonical_email),
        email_verified=row.email_verified,
        name=row.name,
        password=_password(row),
        roles=row.roles,
        created_at=row.created_at,
        version=row.version,
        password_epoch=row.password_epoch,
        status=UserStatus(row.status),
        erase_at=row.erase_at,
        last_login_at=row.last_login_at,
    )


def email_change_of(row: EmailChangeRow) -> EmailChange:
    """Return the change of address of a row."""
    return EmailChange(
        id=row.id,
        user_id=row.user_id,
        number=row.number,
        old=EmailAddress(row.old_email, row.old_canonical_email),
        new=EmailAddress(row.new_email, row.new_canonical_email),
        requested_at=row.requested_at,
        undo_until=row.undo_until,
        state=EmailChangeState(row.state),
    )


def session_of(row: SessionRow) -> Session:
    """Return the session of a row."""
    last = Client(row.last_ip, row.last_user_agent)
    return Session(
        id=row.id,
        user_id=row.user_id,
        client=Client(row.ip, row.user_agent),
        amr=row.amr,
        auth_time=row.auth_time,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        idle_expires_at=row.idle_expires_at,
        absolute_expires_at=row.absolute_expires_at,
        revoked_at=row.revoked_at,
        last_client=last if last != Client() else None,
        replaced_by=row.replaced_by,
    )


def refresh_token_of(row: RefreshTokenRow) -> RefreshToken:
    """Return the refresh token of a row."""
    return RefreshToken(
        id=row.id,
        session_id=row.session_id,
        parent_id=row.parent_id,
        secret_hash=row.secret_hash,
        key_version=row.key_version,
        created_at=row.created_at,
        used_at=row.used_at,
    )


def signing_key_of(row: SigningKeyRow) -> SigningKey:
    """Return the signing key of a row."""
    return SigningKey(
        kid=row.kid,
        algorithm=row.algorithm,
        state=KeyState(row.state),
        public_jwk=row.public_jwk,
        private_key=row.private_key,
        encryption_version=row.encryption_version,
        created_at=row.created_at,
        state_changed_at=row.state_changed_at,
    )

"""SQLAlchemy models of auth's tables, in the schema `auth`."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tequipy_auth.infrastructure.settings import SCHEMA
from tequipy_platform.database import COLUMN_TYPES, schema_metadata


class Base(DeclarativeBase):
    """The base class of auth's models."""

    metadata = schema_metadata(SCHEMA)
    type_annotation_map: ClassVar[dict[Any, Any]] = COLUMN_TYPES | {
        tuple[str, ...]: ARRAY(Text, as_tuple=True),
        tuple[datetime, ...]: ARRAY(DateTime(timezone=True), as_tuple=True),
    }


class PasswordColumns:
    """The columns of a password hash."""

    password_scheme: Mapped[str]
    password_cost: Mapped[int]
    password_pepper_version: Mapped[int]
    password_digest: Mapped[str]


class UserRow(PasswordColumns, Base):
    """An account; the canonical address is unique."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    canonical_email: Mapped[str] = mapped_column(unique=True)
    email_verified: Mapped[bool]
    name: Mapped[str | None]
    roles: Mapped[tuple[str, ...]]
    version: Mapped[int]
    version_changed_at: Mapped[datetime | None]
    # The server default serves processes of the previous release, which insert rows without this column.
    password_epoch: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime]
    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    erase_at: Mapped[datetime | None]
    last_login_at: Mapped[datetime | None]

    __table_args__ = (
        # The index is small, because few accounts have outdated tokens.
        Index(
            "ix_users_version_changed_at",
            "version_changed_at",
            postgresql_where=text("version_changed_at is not null"),
        ),
        Index("ix_users_password_cost", "password_cost"),
        CheckConstraint("status in ('active', 'disabled', 'deleting')", name="ck_users_status"),
    )


class EmailChangeRow(Base):
    """A change of address that can still be undone; it is deleted with its user."""

    __tablename__ = "email_changes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("auth.users.id", ondelete="CASCADE"))
    number: Mapped[int]
    old_email: Mapped[str]
    old_canonical_email: Mapped[str] = mapped_column(index=True)
    new_email: Mapped[str]
    new_canonical_email: Mapped[str]
    requested_at: Mapped[datetime]
    undo_until: Mapped[datetime] = mapped_column(index=True)
    state: Mapped[str]

    __table_args__ = (
        Index("uq_email_changes_user_id", "user_id", "number", unique=True),
        CheckConstraint("state in ('pending', 'confirmed', 'closed')", name="state"),
    )


class RegistrationRow(PasswordColumns, Base):
    """A pending registration; an address may have several."""

    __tablename__ = "registrations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    canonical_email: Mapped[str] = mapped_column(index=True)
    name: Mapped[str | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class InvitationRow(Base):
    """An invitation; it is deleted with the account of its inviter, who could no longer give its roles."""

    __tablename__ = "invitations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    canonical_email: Mapped[str] = mapped_column(unique=True)
    roles: Mapped[tuple[str, ...]]
    invited_by: Mapped[UUID] = mapped_column(ForeignKey("auth.users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class SessionRow(Base):
    """A session; it is deleted with its user, and its refresh tokens with it."""

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("auth.users.id", ondelete="CASCADE"), index=True)
    ip: Mapped[str | None]
    user_agent: Mapped[str | None]
    amr: Mapped[tuple[str, ...]]
    auth_time: Mapped[datetime]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    idle_expires_at: Mapped[datetime]
    absolute_expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_reason: Mapped[str | None]
    last_ip: Mapped[str | None]
    last_user_agent: Mapped[str | None]
    # No foreign key, because either session may be deleted first.
    replaced_by: Mapped[UUID | None]

    __table_args__ = (
        # A starting process selects the sessions whose access tokens may still be in use.
        Index("ix_sessions_revoked_at", "revoked_at", postgresql_where=text("revoked_at is not null")),
    )


class RefreshTokenRow(Base):
    """A refresh token; the unique parent ensures that a token has at most one child."""

    __tablename__ = "refresh_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("auth.sessions.id", ondelete="CASCADE"), index=True)
    # The parent becomes null, so that an old token can be deleted without its successors.
    parent_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("auth.refresh_tokens.id", ondelete="SET NULL"), unique=True
    )
    secret_hash: Mapped[str]
    key_version: Mapped[int]
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class DeviceRow(Base):
    """A client that has logged in to an account; it is deleted with the account."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("auth.users.id", ondelete="CASCADE"), index=True)
    last_used_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class OneTimeTokenRow(Base):
    """A token sent by mail.

    It has no foreign key, because the table of `subject_id` depends on the purpose.
    """

    __tablename__ = "one_time_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    purpose: Mapped[str]
    subject_id: Mapped[UUID]
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    tries: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))

    __table_args__ = (Index("ix_one_time_tokens_subject", "subject_id", "purpose"),)


class SigningKeyRow(Base):
    """A signing key; its private key is encrypted."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(primary_key=True)
    algorithm: Mapped[str]
    state: Mapped[str]
    public_jwk: Mapped[dict[str, Any]] = mapped_column(JSONB)
    private_key: Mapped[bytes]
    encryption_version: Mapped[int | None]
    created_at: Mapped[datetime]
    state_changed_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("state in ('next', 'active', 'retiring', 'revoked')", name="state"),
        # Only one of several processes that start at the same time creates the first key.
        Index("uq_signing_keys_active", "state", unique=True, postgresql_where=text("state = 'active'")),
    )


class RoleRow(Base):
    """A stored role, which adds to or replaces the built-in roles."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(primary_key=True)
    permissions: Mapped[tuple[str, ...]]


class LoginAttemptRow(Base):
    """A counter of failed attempts; `key` and `account` are pseudonyms, so the row names no person."""

    __tablename__ = "login_attempts"

    key: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str | None] = mapped_column(index=True)
    failed_at: Mapped[tuple[datetime, ...]]
    reserved_at: Mapped[tuple[datetime, ...]]
    locks: Mapped[int]
    # The columns of `first_locked_at` and `expires_at` have the names of an earlier release.
    first_locked_at: Mapped[datetime | None] = mapped_column("climbing_since")
    locked_until: Mapped[datetime | None]
    trusted_until: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column("dies_at", index=True)


class MailChargeRow(Base):
    """A mail that was sent or is being sent; the key is a pseudonym of purpose and address."""

    __tablename__ = "mail_charges"

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str]
    charged_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (Index("ix_mail_charges_key", "key", "charged_at"),)


class AuditEventRow(Base):
    """An audit event, which a trigger protects from changes.

    It has no foreign keys, because it is kept longer than the rows that it names.
    """

    __tablename__ = "audit_events"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor_id: Mapped[UUID | None]
    subject_id: Mapped[UUID | None]
    session_id: Mapped[UUID | None]
    action: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str | None]
    ip: Mapped[str | None]
    user_agent: Mapped[str | None]
    correlation_id: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)  # SQLAlchemy reserves the name `metadata`

    __table_args__ = (
        Index("ix_audit_events_at", "at", "id"),
        Index("ix_audit_events_subject_id", "subject_id", "id"),
        Index("ix_audit_events_actor_id", "actor_id", postgresql_where=text("actor_id is not null")),
        Index(
            "ix_audit_events_address",
            text("(metadata ->> 'address')"),
            postgresql_where=text("metadata ? 'address'"),
        ),
    )

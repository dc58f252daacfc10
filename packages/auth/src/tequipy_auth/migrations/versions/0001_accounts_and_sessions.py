"""Create the tables for accounts, registrations, sessions, tokens and signing keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tequipy_platform.database.migrations import schema_name

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _create_accounts()
    _create_sessions()
    _create_one_time_tokens()
    _create_signing_keys()


def downgrade() -> None:
    """Drop the tables."""
    for table in ("signing_keys", "one_time_tokens", "refresh_tokens", "sessions", "registrations", "users"):
        op.drop_table(table, schema=schema_name())


def _time(name: str, *, nullable: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _password_columns() -> "list[sa.Column[object]]":
    return [
        sa.Column("password_scheme", sa.Text(), nullable=False),
        sa.Column("password_cost", sa.Integer(), nullable=False),
        sa.Column("password_pepper_version", sa.Integer(), nullable=False),
        sa.Column("password_digest", sa.Text(), nullable=False),
    ]


def _create_accounts() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("canonical_email", sa.Text(), nullable=False),
        sa.Column("email_verified", sa.Boolean(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("roles", ARRAY(sa.Text()), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _time("created_at"),
        *_password_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("canonical_email", name="uq_users_canonical_email"),
        schema=schema_name(),
    )
    op.create_table(
        "registrations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("canonical_email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        _time("created_at"),
        _time("expires_at"),
        *_password_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_registrations"),
        schema=schema_name(),
    )
    op.create_index("ix_registrations_canonical_email", "registrations", ["canonical_email"], schema=schema_name())


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("ip", sa.Text()),
        sa.Column("user_agent", sa.Text()),
        sa.Column("amr", ARRAY(sa.Text()), nullable=False),
        _time("auth_time"),
        _time("created_at"),
        _time("last_used_at"),
        _time("idle_expires_at"),
        _time("absolute_expires_at"),
        _time("revoked_at", nullable=True),
        sa.Column("revoked_reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(
            ["user_id"], [f"{schema_name()}.users.id"], name="fk_sessions_user_id_users", ondelete="CASCADE"
        ),
        schema=schema_name(),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"], schema=schema_name())
    op.create_table(
        "refresh_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("parent_id", sa.Uuid()),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        _time("created_at"),
        _time("used_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_refresh_tokens"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            [f"{schema_name()}.sessions.id"],
            name="fk_refresh_tokens_session_id_sessions",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            [f"{schema_name()}.refresh_tokens.id"],
            name="fk_refresh_tokens_parent_id_refresh_tokens",
            ondelete="SET NULL",
        ),
        sa.UniqueConstraint("parent_id", name="uq_refresh_tokens_parent_id"),
        schema=schema_name(),
    )
    op.create_index("ix_refresh_tokens_session_id", "refresh_tokens", ["session_id"], schema=schema_name())


def _create_one_time_tokens() -> None:
    op.create_table(
        "one_time_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        _time("created_at"),
        _time("expires_at"),
        _time("used_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_one_time_tokens"),
        schema=schema_name(),
    )
    op.create_index("ix_one_time_tokens_subject", "one_time_tokens", ["subject_id", "purpose"], schema=schema_name())


def _create_signing_keys() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("public_jwk", JSONB(), nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=False),
        _time("created_at"),
        _time("state_changed_at"),
        sa.CheckConstraint("state in ('next', 'active', 'retiring', 'revoked')", name="ck_signing_keys_state"),
        sa.PrimaryKeyConstraint("kid", name="pk_signing_keys"),
        schema=schema_name(),
    )
    op.create_index(
        "uq_signing_keys_active",
        "signing_keys",
        ["state"],
        unique=True,
        schema=schema_name(),
        postgresql_where=sa.text("state = 'active'"),
    )

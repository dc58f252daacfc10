"""Add the times of session revocations and account version changes, which a starting process loads."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the indexes."""
    op.add_column("users", sa.Column("version_changed_at", sa.DateTime(timezone=True)), schema=schema_name())
    op.create_index(
        "ix_users_version_changed_at",
        "users",
        ["version_changed_at"],
        schema=schema_name(),
        postgresql_where=sa.text("version_changed_at is not null"),
    )
    op.create_index(
        "ix_sessions_revoked_at",
        "sessions",
        ["revoked_at"],
        schema=schema_name(),
        postgresql_where=sa.text("revoked_at is not null"),
    )


def downgrade() -> None:
    """Drop the indexes and the column."""
    op.drop_index("ix_sessions_revoked_at", table_name="sessions", schema=schema_name())
    op.drop_index("ix_users_version_changed_at", table_name="users", schema=schema_name())
    op.drop_column("users", "version_changed_at", schema=schema_name())

"""Add the status of accounts, and the times of their erasure and of their latest login."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; processes of the previous release insert rows without them."""
    schema = schema_name()
    op.add_column("users", sa.Column("status", sa.Text(), nullable=False, server_default="active"), schema=schema)
    op.add_column("users", sa.Column("erase_at", sa.DateTime(timezone=True)), schema=schema)
    op.add_column("users", sa.Column("last_login_at", sa.DateTime(timezone=True)), schema=schema)
    op.create_check_constraint(
        "ck_users_status", "users", "status in ('active', 'disabled', 'deleting')", schema=schema
    )


def downgrade() -> None:
    """Drop the columns, with the constraint."""
    schema = schema_name()
    for column in ("last_login_at", "erase_at", "status"):
        op.drop_column("users", column, schema=schema)

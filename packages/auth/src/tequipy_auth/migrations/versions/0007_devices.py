"""Add devices and password epochs for device marks, and lockout columns for the first lock and trusted clients."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of devices and add the columns."""
    op.add_column(
        "users", sa.Column("password_epoch", sa.Integer(), server_default="0", nullable=False), schema=schema_name()
    )
    op.create_table(
        "devices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_devices"),
        sa.ForeignKeyConstraint(
            ["user_id"], [f"{schema_name()}.users.id"], name="fk_devices_user_id_users", ondelete="CASCADE"
        ),
        schema=schema_name(),
    )
    op.create_index("ix_devices_user_id", "devices", ["user_id"], schema=schema_name())
    op.add_column("login_attempts", sa.Column("climbing_since", sa.DateTime(timezone=True)), schema=schema_name())
    op.add_column("login_attempts", sa.Column("trusted_until", sa.DateTime(timezone=True)), schema=schema_name())


def downgrade() -> None:
    """Drop the columns and the table of devices."""
    op.drop_column("login_attempts", "trusted_until", schema=schema_name())
    op.drop_column("login_attempts", "climbing_since", schema=schema_name())
    op.drop_table("devices", schema=schema_name())
    op.drop_column("users", "password_epoch", schema=schema_name())

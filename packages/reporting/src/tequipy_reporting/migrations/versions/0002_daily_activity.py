"""Create the table of the daily activity."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "daily_activity",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("registrations", sa.BigInteger(), nullable=False),
        sa.Column("logins", sa.BigInteger(), nullable=False),
        sa.Column("failed_logins", sa.BigInteger(), nullable=False),
        sa.Column("active_users", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("day", name="pk_daily_activity"),
        schema=schema_name(),
    )


def downgrade() -> None:
    """Drop the table; days that the audit no longer holds are lost."""
    op.drop_table("daily_activity", schema=schema_name())

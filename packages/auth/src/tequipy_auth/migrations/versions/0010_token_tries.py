"""Add the number of password attempts to mailed tokens."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "one_time_tokens",
        sa.Column("tries", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        schema=schema_name(),
    )


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("one_time_tokens", "tries", schema=schema_name())

"""Count the failed attempts of a message in its outbox row, where it waits for the next attempt."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `failed_attempts` and `failing_since`."""
    op.add_column(
        "outbox",
        sa.Column("failed_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema=schema_name(),
    )
    op.add_column("outbox", sa.Column("failing_since", sa.DateTime(timezone=True)), schema=schema_name())


def downgrade() -> None:
    """Drop both columns."""
    op.drop_column("outbox", "failing_since", schema=schema_name())
    op.drop_column("outbox", "failed_attempts", schema=schema_name())

"""Add the time at which a message became a dead letter; drop the queue, which the task determines."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `given_up_at`, drop `queue`."""
    op.add_column("outbox", sa.Column("given_up_at", sa.DateTime(timezone=True)), schema=schema_name())
    op.drop_column("outbox", "queue", schema=schema_name())


def downgrade() -> None:
    """Add `queue` empty, drop `given_up_at`."""
    op.add_column("outbox", sa.Column("queue", sa.Text()), schema=schema_name())
    op.drop_column("outbox", "given_up_at", schema=schema_name())

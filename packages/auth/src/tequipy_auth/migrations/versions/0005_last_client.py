"""Add the client of a session's latest refresh, for the audit of repeated token use from another client."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("sessions", sa.Column("last_ip", sa.Text()), schema=schema_name())
    op.add_column("sessions", sa.Column("last_user_agent", sa.Text()), schema=schema_name())


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("sessions", "last_user_agent", schema=schema_name())
    op.drop_column("sessions", "last_ip", schema=schema_name())

"""Where the latest refresh of a session came from, so that a replay from elsewhere is audited."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.migrations import schema_name

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("last_ip", sa.Text()), schema=schema_name())
    op.add_column("sessions", sa.Column("last_user_agent", sa.Text()), schema=schema_name())


def downgrade() -> None:
    op.drop_column("sessions", "last_user_agent", schema=schema_name())
    op.drop_column("sessions", "last_ip", schema=schema_name())

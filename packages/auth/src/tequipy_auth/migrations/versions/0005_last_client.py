"""Where the latest refresh of a session came from, so that a replay from elsewhere is audited."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("last_ip", sa.Text()), schema="auth")
    op.add_column("sessions", sa.Column("last_user_agent", sa.Text()), schema="auth")


def downgrade() -> None:
    op.drop_column("sessions", "last_user_agent", schema="auth")
    op.drop_column("sessions", "last_ip", schema="auth")

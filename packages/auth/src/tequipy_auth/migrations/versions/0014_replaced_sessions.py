"""Add to a session the one that replaced it when its user authenticated again."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is no foreign key, because the replaced session may be deleted first or last."""
    op.add_column("sessions", sa.Column("replaced_by", sa.Uuid()), schema=schema_name())


def downgrade() -> None:
    """Drop the column; replaced sessions are then ended ones."""
    op.drop_column("sessions", "replaced_by", schema=schema_name())

"""Create the table of roles that add to or replace the built-in ones."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from tequipy_platform.database.migrations import schema_name

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "roles",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("permissions", ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_roles"),
        schema=schema_name(),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("roles", schema=schema_name())

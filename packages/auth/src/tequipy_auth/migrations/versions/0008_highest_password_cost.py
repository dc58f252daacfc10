"""Add an index for the highest stored password cost, which every login selects."""

from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.create_index("ix_users_password_cost", "users", ["password_cost"], schema=schema_name())


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_users_password_cost", "users", schema=schema_name())

"""The highest cost of a stored password is found by an index: each login asks for it."""

from alembic import op

from tequipy_platform.migrations import schema_name

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_users_password_cost", "users", ["password_cost"], schema=schema_name())


def downgrade() -> None:
    op.drop_index("ix_users_password_cost", "users", schema=schema_name())

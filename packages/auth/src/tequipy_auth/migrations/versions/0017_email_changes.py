"""Create the table of changes of address."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    schema = schema_name()
    op.create_table(
        "email_changes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("old_email", sa.Text(), nullable=False),
        sa.Column("old_canonical_email", sa.Text(), nullable=False),
        sa.Column("new_email", sa.Text(), nullable=False),
        sa.Column("new_canonical_email", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undo_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint("state in ('pending', 'confirmed', 'closed')", name="ck_email_changes_state"),
        sa.PrimaryKeyConstraint("id", name="pk_email_changes"),
        sa.ForeignKeyConstraint(
            ["user_id"], [f"{schema}.users.id"], name="fk_email_changes_user_id_users", ondelete="CASCADE"
        ),
        schema=schema,
    )
    op.create_index("uq_email_changes_user_id", "email_changes", ["user_id", "number"], unique=True, schema=schema)
    op.create_index("ix_email_changes_old_canonical_email", "email_changes", ["old_canonical_email"], schema=schema)
    op.create_index("ix_email_changes_undo_until", "email_changes", ["undo_until"], schema=schema)


def downgrade() -> None:
    """Drop the table; changes of address can then neither be confirmed nor undone."""
    op.drop_table("email_changes", schema=schema_name())

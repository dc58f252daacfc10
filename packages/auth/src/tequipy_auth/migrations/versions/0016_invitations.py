"""Create the table of invitations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from tequipy_platform.database.migrations import schema_name

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; an invitation is deleted with the account of its inviter."""
    schema = schema_name()
    op.create_table(
        "invitations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("canonical_email", sa.Text(), nullable=False),
        sa.Column("roles", ARRAY(sa.Text()), nullable=False),
        sa.Column("invited_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.UniqueConstraint("canonical_email", name="uq_invitations_canonical_email"),
        sa.ForeignKeyConstraint(
            ["invited_by"], [f"{schema}.users.id"], name="fk_invitations_invited_by_users", ondelete="CASCADE"
        ),
        schema=schema,
    )
    op.create_index("ix_invitations_invited_by", "invitations", ["invited_by"], schema=schema)


def downgrade() -> None:
    """Drop the table: the links of open invitations become invalid."""
    op.drop_table("invitations", schema=schema_name())

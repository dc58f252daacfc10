"""Create the table of sent mails for budgets; purpose and address are stored as one pseudonym."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table with its indexes."""
    op.create_table(
        "mail_charges",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("charged_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="pk_mail_charges"),
        schema=schema_name(),
    )
    op.create_index("ix_mail_charges_key", "mail_charges", ["key", "charged_at"], schema=schema_name())
    op.create_index("ix_mail_charges_charged_at", "mail_charges", ["charged_at"], schema=schema_name())


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("mail_charges", schema=schema_name())

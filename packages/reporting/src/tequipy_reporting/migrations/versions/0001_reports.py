"""Create the table of reports."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    schema = schema_name()
    op.create_table(
        "reports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("requested_by", sa.Uuid()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("error_code", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("enqueued_at", sa.DateTime(timezone=True)),
        sa.Column("message_id", sa.Uuid()),
        sa.Column("attempt", sa.Uuid()),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("storage_key", sa.Text()),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("sha256", sa.Text()),
        sa.CheckConstraint(
            "status in ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')", name="ck_reports_status"
        ),
        sa.CheckConstraint("(status = 'done') = (storage_key is not null)", name="ck_reports_file_of_done"),
        sa.PrimaryKeyConstraint("id", name="pk_reports"),
        sa.UniqueConstraint("storage_key", name="uq_reports_storage_key"),
        schema=schema,
    )
    op.create_index("ix_reports_requested_by", "reports", ["requested_by"], schema=schema)
    op.create_index(
        "uq_reports_turn",
        "reports",
        ["requested_by"],
        unique=True,
        schema=schema,
        postgresql_where=sa.text("status in ('queued', 'running') and enqueued_at is not null"),
    )
    op.create_index(
        "ix_reports_finished_at",
        "reports",
        ["finished_at"],
        schema=schema,
        postgresql_where=sa.text("finished_at is not null"),
    )


def downgrade() -> None:
    """Drop the table; the files of reports stay in the object storage."""
    op.drop_table("reports", schema=schema_name())

"""Create outbox, with the trigger that notifies the relay, and inbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from tequipy_platform.database.migrations import schema_name

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables, their indexes and the trigger."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.Text()),
        sa.Column("event", sa.Text()),
        sa.Column("payload", JSONB(), nullable=False),
        sa.Column("correlation_id", sa.Text()),
        sa.Column("traceparent", sa.Text()),
        sa.Column("queue", sa.Text()),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("publications", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("redeliver_at", sa.DateTime(timezone=True)),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("num_nonnulls(task, event) = 1", name="ck_outbox_task_or_event"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        schema=schema_name(),
    )
    op.create_index(
        "ix_outbox_pending", "outbox", ["id"], schema=schema_name(), postgresql_where=sa.text("published_at IS NULL")
    )
    op.create_index(
        "ix_outbox_unsettled",
        "outbox",
        ["redeliver_at"],
        schema=schema_name(),
        postgresql_where=sa.text("published_at IS NOT NULL AND settled_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_settled_at",
        "outbox",
        ["settled_at"],
        schema=schema_name(),
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    # A statement trigger is enough: the relay reads all new rows after one notification.
    op.execute(
        f"""
        CREATE FUNCTION "{schema_name()}".notify_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('tequipy_outbox', '');
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        f'CREATE TRIGGER notify_outbox AFTER INSERT ON "{schema_name()}".outbox '
        f'FOR EACH STATEMENT EXECUTE FUNCTION "{schema_name()}".notify_outbox()'
    )
    op.create_table(
        "inbox",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state in ('sending', 'done')", name="ck_inbox_state"),
        sa.PrimaryKeyConstraint("message_id", "handler", name="pk_inbox"),
        schema=schema_name(),
    )
    op.create_index("ix_inbox_taken_at", "inbox", ["taken_at"], schema=schema_name())


def downgrade() -> None:
    """Drop both tables and the trigger."""
    op.drop_table("inbox", schema=schema_name())
    op.drop_table("outbox", schema=schema_name())
    op.execute(f'DROP FUNCTION "{schema_name()}".notify_outbox()')

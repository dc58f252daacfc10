"""Add the state of each message, its failed attempts and versions, and the schedules."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATES = "state in ('pending', 'published', 'running', 'failed', 'done', 'dead', 'discarded')"
ADDED = (
    ("schema_version", sa.SmallInteger(), "1"),
    ("producer_version", sa.Text(), None),
    ("state", sa.Text(), "'pending'"),
    ("queue", sa.Text(), None),
    ("attempts", sa.Integer(), "0"),
    ("deaths", sa.SmallInteger(), "0"),
    ("waiting_since", sa.DateTime(timezone=True), None),
    ("started_at", sa.DateTime(timezone=True), None),
    ("worker", sa.Text(), None),
    ("error", sa.Text(), None),
)
BEFORE = {
    "ix_outbox_pending": (
        ["not_before", "id"],
        "task IS NOT NULL AND published_at IS NULL AND given_up_at IS NULL",
    ),
    "ix_outbox_events": (["id"], "event IS NOT NULL AND published_at IS NULL"),
    "ix_outbox_unsettled": (
        ["redeliver_at"],
        "published_at IS NOT NULL AND settled_at IS NULL AND given_up_at IS NULL",
    ),
}
AFTER = {
    "ix_outbox_due": (["not_before", "id"], "task IS NOT NULL AND state IN ('pending', 'failed')"),
    "ix_outbox_events": (["id"], "event IS NOT NULL AND state = 'pending'"),
    "ix_outbox_published": (["queue", "published_at"], "state = 'published'"),
    "ix_outbox_running": (["redeliver_at"], "state = 'running'"),
    "ix_outbox_started": (["queue", "published_at"], "started_at IS NOT NULL"),
    "ix_outbox_correlation_id": (["correlation_id"], "correlation_id IS NOT NULL"),
    "ix_outbox_dead": (["settled_at"], "state = 'dead'"),
}


def create_indexes(indexes: dict[str, tuple[list[str], str]]) -> None:
    """Create partial indexes of the outbox: columns and condition by name."""
    for name, (columns, condition) in indexes.items():
        op.create_index(name, "outbox", columns, schema=schema_name(), postgresql_where=sa.text(condition))


def drop_indexes(indexes: dict[str, tuple[list[str], str]]) -> None:
    """Drop the indexes."""
    for name in indexes:
        op.drop_index(name, "outbox", schema=schema_name())


def upgrade() -> None:
    """Add the columns, derive the states of the existing rows, and create the two tables."""
    schema = schema_name()
    for name, kind, default in ADDED:
        server_default = sa.text(default) if default else None
        column = sa.Column(name, kind, server_default=server_default, nullable=default is None)
        op.add_column("outbox", column, schema=schema)
    op.execute(
        f"""
        UPDATE "{schema}".outbox SET settled_at = coalesce(settled_at, given_up_at), state = CASE
            WHEN given_up_at IS NOT NULL THEN 'dead'
            WHEN settled_at IS NOT NULL THEN 'done'
            WHEN event IS NOT NULL AND published_at IS NOT NULL THEN 'done'
            WHEN published_at IS NOT NULL THEN 'published'
            WHEN failed_attempts > 0 THEN 'failed'
            ELSE 'pending' END
        """
    )
    op.create_check_constraint(op.f("ck_outbox_state"), "outbox", STATES, schema=schema)
    drop_indexes(BEFORE)
    op.drop_column("outbox", "given_up_at", schema=schema)
    create_indexes(AFTER)
    op.create_table(
        "attempts",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("worker", sa.Text()),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", "number", name="pk_attempts"),
        sa.ForeignKeyConstraint(
            ["message_id"], [f"{schema}.outbox.id"], name="fk_attempts_message_id_outbox", ondelete="CASCADE"
        ),
        schema=schema,
    )
    op.create_table(
        "schedules",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("last_occurrence", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("task", name="pk_schedules"),
        schema=schema,
    )


def downgrade() -> None:
    """Restore the columns and indexes; dead and discarded messages stay given up."""
    schema = schema_name()
    op.drop_table("schedules", schema=schema)
    op.drop_table("attempts", schema=schema)
    op.add_column("outbox", sa.Column("given_up_at", sa.DateTime(timezone=True)), schema=schema)
    op.execute(
        f"""
        UPDATE "{schema}".outbox SET given_up_at = settled_at, settled_at = NULL WHERE state IN ('dead', 'discarded')
        """
    )
    drop_indexes(AFTER)
    op.drop_constraint(op.f("ck_outbox_state"), "outbox", schema=schema)
    for name, _, _ in ADDED:
        op.drop_column("outbox", name, schema=schema)
    create_indexes(BEFORE)

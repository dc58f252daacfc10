"""Make `not_before` required and index the due messages in the order in which the relay reads them."""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = {
    "ix_outbox_pending": (["id"], "published_at IS NULL"),
    "ix_outbox_unsettled": (["redeliver_at"], "published_at IS NOT NULL AND settled_at IS NULL"),
}
AFTER = {
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


def replace_indexes(old: dict[str, tuple[list[str], str]], new: dict[str, tuple[list[str], str]]) -> None:
    """Drop the indexes of `old` and create those of `new`."""
    for name in old:
        op.drop_index(name, "outbox", schema=schema_name())
    for name, (columns, condition) in new.items():
        op.create_index(name, "outbox", columns, schema=schema_name(), postgresql_where=sa.text(condition))


def upgrade() -> None:
    """Fill `not_before`, make it required, and replace the indexes."""
    op.execute(f'UPDATE "{schema_name()}".outbox SET not_before = created_at WHERE not_before IS NULL')
    op.alter_column("outbox", "not_before", server_default=sa.func.now(), nullable=False, schema=schema_name())
    replace_indexes(BEFORE, AFTER)


def downgrade() -> None:
    """Restore the old indexes and the optional `not_before`."""
    replace_indexes(AFTER, BEFORE)
    op.alter_column("outbox", "not_before", server_default=None, nullable=True, schema=schema_name())

"""Create the append-only audit table and the counters of failed attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tequipy_platform.database.migrations import schema_name

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the audit table with its trigger, and the counters."""
    _create_audit()
    op.create_table(
        "login_attempts",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("account", sa.Text()),
        sa.Column("failed_at", ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.Column("reserved_at", ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.Column("locks", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True)),
        sa.Column("dies_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("key", name="pk_login_attempts"),
        schema=schema_name(),
    )
    op.create_index("ix_login_attempts_account", "login_attempts", ["account"], schema=schema_name())
    op.create_index("ix_login_attempts_dies_at", "login_attempts", ["dies_at"], schema=schema_name())


def downgrade() -> None:
    """Drop both tables and the trigger function."""
    op.drop_table("login_attempts", schema=schema_name())
    op.drop_table("audit_events", schema=schema_name())
    op.execute(f'drop function "{schema_name()}".refuse_audit_change()')


def _create_audit() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Uuid()),
        sa.Column("subject_id", sa.Uuid()),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("ip", sa.Text()),
        sa.Column("user_agent", sa.Text()),
        sa.Column("correlation_id", sa.Text()),
        sa.Column("metadata", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
        schema=schema_name(),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at", "id"], schema=schema_name())
    op.create_index("ix_audit_events_subject_id", "audit_events", ["subject_id", "id"], schema=schema_name())
    schema = schema_name()
    op.execute(f"""
        create function "{schema}".refuse_audit_change() returns trigger language plpgsql as $$
        begin
            raise exception '%.audit_events is append-only', tg_table_schema;
        end $$
    """)
    op.execute(f"""
        create trigger append_only before update or delete on "{schema}".audit_events
        for each statement execute function "{schema}".refuse_audit_change()
    """)

"""Send the schema's name with notifications, so that a relay ignores those of another schema in the same database."""

from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Notify with the schema's name."""
    _notify_with("TG_TABLE_SCHEMA")


def downgrade() -> None:
    """Notify with an empty payload."""
    _notify_with("''")


def _notify_with(payload: str) -> None:
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION "{schema_name()}".notify_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('tequipy_outbox', {payload});
            RETURN NULL;
        END $$
        """
    )

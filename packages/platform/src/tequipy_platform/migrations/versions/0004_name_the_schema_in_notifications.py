"""The outbox's notification names its schema: two installations in one database do not wake each other's relays."""

from alembic import op

from tequipy_platform.migrations import schema_name

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _notify_with("TG_TABLE_SCHEMA")


def downgrade() -> None:
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

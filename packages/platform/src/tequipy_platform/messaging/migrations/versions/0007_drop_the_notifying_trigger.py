"""Drop the trigger that notified the relay within each commit: the unit of work notifies it after the commit."""

from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the trigger and its function."""
    op.execute(f'DROP TRIGGER notify_outbox ON "{schema_name()}".outbox')
    op.execute(f'DROP FUNCTION "{schema_name()}".notify_outbox()')


def downgrade() -> None:
    """Create both again; processes that notify after the commit too cause a second notification, which is harmless."""
    op.execute(
        f"""
        CREATE FUNCTION "{schema_name()}".notify_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('tequipy_outbox', TG_TABLE_SCHEMA);
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        f'CREATE TRIGGER notify_outbox AFTER INSERT ON "{schema_name()}".outbox '
        f'FOR EACH STATEMENT EXECUTE FUNCTION "{schema_name()}".notify_outbox()'
    )

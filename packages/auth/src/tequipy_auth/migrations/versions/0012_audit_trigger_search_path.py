"""Make the audit's trigger look functions up only in `pg_catalog`, independent of the session's `search_path`."""

from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Set the search path of the trigger function."""
    # Otherwise a role could put its own schema before pg_catalog, and its functions would decide.
    op.execute(f'alter function "{schema_name()}".refuse_audit_change() set search_path = pg_catalog, pg_temp')


def downgrade() -> None:
    """Reset the search path of the trigger function."""
    op.execute(f'alter function "{schema_name()}".refuse_audit_change() reset search_path')

"""The audit's trigger finds functions in `pg_catalog` alone, whatever `search_path` the session has."""

from alembic import op

from tequipy_platform.migrations import schema_name

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Otherwise a role with a schema of its own puts it before pg_catalog, and its functions decide.
    op.execute(f'alter function "{schema_name()}".refuse_audit_change() set search_path = pg_catalog, pg_temp')


def downgrade() -> None:
    op.execute(f'alter function "{schema_name()}".refuse_audit_change() reset search_path')

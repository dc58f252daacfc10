"""Make the audit refuse TRUNCATE, and add a function that deletes events older than the retention."""

from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the trigger and create the purge function."""
    schema = schema_name()
    # The trigger allows a deletion when the purge function announces it, and only for the owner of the table, who also
    # owns the function: no other role can get around it by setting the parameter itself, whatever its grants.
    op.execute(f"""
        create or replace function "{schema}".refuse_audit_change() returns trigger language plpgsql as $$
        begin
            if tg_op = 'DELETE' and current_setting('tequipy_auth.purged_table', true) = tg_relid::text
                and current_user = (select pg_get_userbyid(relowner) from pg_catalog.pg_class where oid = tg_relid)
            then
                return null;
            end if;
            raise exception '%.audit_events is append-only', tg_table_schema;
        end $$
    """)
    _create_trigger("update or delete or truncate")
    # The function runs with the rights of its owner, so that the role of the apps needs no DELETE. It refuses recent
    # events and limits the number of rows.
    op.execute(f"""
        create function "{schema}".purge_audit_events(before timestamptz, most int) returns int
        language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
        declare
            purged int;
        begin
            if before is null or before > now() - interval '7 days' then
                raise exception 'audit events of the last 7 days cannot be purged';
            end if;
            perform set_config('tequipy_auth.purged_table', '"{schema}".audit_events'::regclass::oid::text, true);
            delete from "{schema}".audit_events where id in (
                select id from "{schema}".audit_events where at < before
                order by at, id limit least(most, 10000) for update skip locked
            );
            get diagnostics purged = row_count;
            perform set_config('tequipy_auth.purged_table', '', true);
            return purged;
        end $$
    """)
    op.execute(f'revoke all on function "{schema}".purge_audit_events(timestamptz, int) from public')


def downgrade() -> None:
    """Drop the purge function and restore the earlier trigger."""
    schema = schema_name()
    op.execute(f'drop function "{schema}".purge_audit_events(timestamptz, int)')
    _create_trigger("update or delete")
    op.execute(f"""
        create or replace function "{schema}".refuse_audit_change() returns trigger language plpgsql as $$
        begin
            raise exception '%.audit_events is append-only', tg_table_schema;
        end $$
    """)


def _create_trigger(changes: str) -> None:
    schema = schema_name()
    op.execute(f'drop trigger append_only on "{schema}".audit_events')
    op.execute(f"""
        create trigger append_only before {changes} on "{schema}".audit_events
        for each statement execute function "{schema}".refuse_audit_change()
    """)

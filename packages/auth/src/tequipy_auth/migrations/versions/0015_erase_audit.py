"""Let one function empty the personal data in the audit events of an erased account."""

from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Extend the trigger, create the function, and index the columns by which it finds events."""
    schema = schema_name()
    op.execute(f"""
        create index ix_audit_events_actor_id on "{schema}".audit_events (actor_id) where actor_id is not null
    """)
    op.execute(f"""
        create index ix_audit_events_address on "{schema}".audit_events ((metadata ->> 'address'))
        where metadata ? 'address'
    """)
    _replace_trigger_function("""
            if tg_op = 'DELETE' and current_setting('tequipy_auth.purged_table', true) = tg_relid::text
                and current_user = (select pg_get_userbyid(relowner) from pg_catalog.pg_class where oid = tg_relid)
            then
                return null;
            end if;
            if tg_op = 'UPDATE' and current_setting('tequipy_auth.erased_table', true) = tg_relid::text
                and current_user = (select pg_get_userbyid(relowner) from pg_catalog.pg_class where oid = tg_relid)
            then
                return null;
            end if;
    """)
    # It runs with the rights of its owner, as the purge does, and only for an account whose erasure is due: a role that
    # may execute it cannot empty the events of other accounts.
    op.execute(f"""
        create function "{schema}".erase_audit_events(account uuid, address text) returns int
        language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
        declare
            erased int;
        begin
            perform 1 from "{schema}".users
                where id = account and status = 'deleting' and erase_at <= now() + interval '30 seconds';
            if not found then
                raise exception 'the erasure of this account is not due';
            end if;
            perform set_config('tequipy_auth.erased_table', '"{schema}".audit_events'::regclass::oid::text, true);
            update "{schema}".audit_events as event set
                metadata = case when subject_id = account or metadata ->> 'address' = address
                    then '{{}}'::jsonb else metadata end,
                ip = case when actor_id = account or actor_id is null then null else ip end,
                user_agent = case when actor_id = account or actor_id is null then null else user_agent end
                where subject_id = account or actor_id = account
                    or (metadata ? 'address' and metadata ->> 'address' = address);
            get diagnostics erased = row_count;
            perform set_config('tequipy_auth.erased_table', '', true);
            return erased;
        end $$
    """)
    op.execute(f'revoke all on function "{schema}".erase_audit_events(uuid, text) from public')


def downgrade() -> None:
    """Drop the function and the indexes, and restore the earlier trigger."""
    schema = schema_name()
    op.execute(f'drop function "{schema}".erase_audit_events(uuid, text)')
    _replace_trigger_function("""
            if tg_op = 'DELETE' and current_setting('tequipy_auth.purged_table', true) = tg_relid::text
                and current_user = (select pg_get_userbyid(relowner) from pg_catalog.pg_class where oid = tg_relid)
            then
                return null;
            end if;
    """)
    op.execute(f'drop index "{schema}".ix_audit_events_address')
    op.execute(f'drop index "{schema}".ix_audit_events_actor_id')


def _replace_trigger_function(allowed: str) -> None:
    op.execute(f"""
        create or replace function "{schema_name()}".refuse_audit_change() returns trigger language plpgsql
        set search_path = pg_catalog, pg_temp as $$
        begin
            {allowed}
            raise exception '%.audit_events is append-only', tg_table_schema;
        end $$
    """)

"""Let the function that empties the audit events of an erased account take all its addresses at once."""

from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the function; no release has called the earlier one."""
    op.execute(f'drop function "{schema_name()}".erase_audit_events(uuid, text)')
    _create_function("addresses text[]", "metadata ->> 'address' = any(addresses)")
    op.execute(f'revoke all on function "{schema_name()}".erase_audit_events(uuid, text[]) from public')


def downgrade() -> None:
    """Restore the function that takes one address."""
    op.execute(f'drop function "{schema_name()}".erase_audit_events(uuid, text[])')
    _create_function("address text", "metadata ->> 'address' = address")
    op.execute(f'revoke all on function "{schema_name()}".erase_audit_events(uuid, text) from public')


def _create_function(parameter: str, has_address: str) -> None:
    schema = schema_name()
    # It runs with the rights of its owner, as the purge does, and only for an account whose erasure is due: a role that
    # may execute it cannot empty the events of other accounts.
    op.execute(f"""
        create function "{schema}".erase_audit_events(account uuid, {parameter}) returns int
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
                metadata = case when subject_id = account or {has_address} then '{{}}'::jsonb else metadata end,
                ip = case when actor_id = account or actor_id is null then null else ip end,
                user_agent = case when actor_id = account or actor_id is null then null else user_agent end
                where subject_id = account or actor_id = account or (metadata ? 'address' and {has_address});
            get diagnostics erased = row_count;
            perform set_config('tequipy_auth.erased_table', '', true);
            return erased;
        end $$
    """)

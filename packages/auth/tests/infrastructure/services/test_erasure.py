"""The erasure of an account on PostgreSQL: what remains of it in every table."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tequipy_auth import Auth, Client, UserFilter
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_platform import Delivery, DomainError, PageRequest, SystemClock
from tequipy_platform.database import Database, uuid7

from .processes import CLIENT, EMAIL, PASSWORD, mailed_tokens, make_auth

STRANGER = Client("192.0.2.99", "stranger")

TABLES = "select schemaname, relname from pg_stat_user_tables where schemaname in ('auth', 'platform') order by 1, 2"
ROWS = "select row_of_table::text from {}.{} row_of_table"


async def find(database: Database, *needles: str) -> dict[str, list[str]]:
    """Return the tables in which one of the texts stands, with these texts."""
    found = {}
    async with database.sessions() as session:
        for schema, table in (await session.execute(text(TABLES))).all():
            rows = "\n".join(await session.scalars(text(ROWS.format(schema, table)))).lower()
            found[f"{schema}.{table}"] = [needle for needle in needles if needle.lower() in rows]
    return {name: texts for name, texts in found.items() if texts}


async def test_what_remains_of_an_erased_account(database: Database) -> None:
    """Only its id remains, in the audit and in messages; address, name, client addresses and user agents are gone."""
    async with make_auth(database, policy={"erasure_delay": 0}) as auth:
        await auth.registration.create_admin(email="admin@example.com", password=PASSWORD)
        await auth.registration.create_admin(email=EMAIL, password=PASSWORD, name="Ada Lovelace")
        with pytest.raises(DomainError):
            await auth.login.with_password(email=EMAIL, password="a wrong password", client=CLIENT)
        pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
        await auth.passwords.forgot(email=EMAIL, client=CLIENT)
        principal = await auth.access_tokens.verify(pair.access.value)
        await auth.email_changes.request(principal, new_email="lovelace@example.net", client=CLIENT)
        await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
        await mailed_tokens(auth, database)
        traces = (EMAIL, "Lovelace", str(CLIENT.ip), f",{CLIENT.user_agent},")
        before = await find(database, *traces)
        assert {"auth.users", "auth.sessions", "auth.email_changes", "auth.audit_events"} <= before.keys()
        await auth.deletion.request(principal, password=PASSWORD, client=CLIENT)
        await auth.deletion.erase_due(Delivery(uuid7(), "auth.erase_accounts"))
        assert await find(database, *traces) == {}
        remains = await find(database, str(principal.user_id))
        print(f"\n{ROWS}\nbefore: {before}\nafter: {remains}")
        assert remains == {name: [str(principal.user_id)] for name in ("auth.audit_events", "platform.outbox")}
        async with database.sessions() as session:
            kept = await session.execute(
                text("select count(*), count(nullif(metadata, '{}')) from auth.audit_events where subject_id = :id"),
                {"id": principal.user_id},
            )
            tokens = await session.scalar(text("select count(*) from auth.one_time_tokens"))
        assert tokens == 0, "also none of a change of address"
        number, with_metadata = kept.one()
        assert number > 4
        assert with_metadata == 0


async def test_events_of_others_stay_as_they_are(database: Database) -> None:
    """The client of an administrator, and events about other accounts, are not emptied."""
    async with make_auth(database, policy={"erasure_delay": 0}) as auth:
        for email in (EMAIL, "other@example.com"):
            await auth.registration.create_admin(email=email, password=PASSWORD)
        mine, other = [
            await auth.access_tokens.verify(
                (await auth.login.with_password(email=email, password=PASSWORD, client=client)).access.value
            )
            for email, client in ((EMAIL, CLIENT), ("other@example.com", STRANGER))
        ]
        await auth.administration.unlock(other, mine.user_id, client=STRANGER)
        await auth.deletion.request(mine, password=PASSWORD, client=CLIENT)
        await auth.deletion.erase_due(Delivery(uuid7(), "auth.erase_accounts"))
    async with database.sessions() as session:
        events = await session.execute(text("select action, ip from auth.audit_events where ip is not null"))
        assert sorted(events.all()) == [("login_ok", "192.0.2.99"), ("user_unlocked", "192.0.2.99")]


async def test_only_due_accounts_can_be_erased(auth: Auth, database: Database) -> None:
    """The function of the database refuses an account whose erasure is not due, also for a role that may execute it."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    (user,) = (await auth.administration.users(PageRequest(), UserFilter())).items
    for user_id in (user.id, UUID(int=1)):
        async with SqlAuthUnitOfWork(database, SystemClock(), uuid7) as work:
            with pytest.raises(DBAPIError, match="not due"):
                await work.audit.erase(user_id, [])
    async with SqlAuthUnitOfWork(database, SystemClock(), uuid7) as work:
        await work.users.set_status(user.id, user.status, erase_at=datetime.now(UTC) - timedelta(days=1))
    async with database.engine.connect() as connection:
        with pytest.raises(DBAPIError, match="append-only"):
            await connection.execute(text("update auth.audit_events set ip = null"))

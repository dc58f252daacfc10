"""The rows that the services store: none contains a secret, and a purge keeps the live ones."""

import pytest
from sqlalchemy import func, select

from tequipy_auth import Auth, InvalidCredentials
from tequipy_auth.infrastructure.models import Base, OneTimeTokenRow, RegistrationRow
from tequipy_platform import Delivery
from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging.models import OutboxRow

from .processes import CLIENT, EMAIL, PASSWORD, mailed_tokens


async def test_a_secret_never_reaches_the_database(auth: Auth, database: Database) -> None:
    """No table contains a password, a refresh secret or a one-time secret."""
    await auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT)
    (token,) = await mailed_tokens(auth, database)
    await auth.registration.verify_email(token, client=CLIENT)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email="bob@example.com", password=PASSWORD, client=CLIENT)
    async with database.engine.connect() as connection:
        tables = {"outbox": str((await connection.execute(select(OutboxRow.__table__))).all())}
        for table in Base.metadata.sorted_tables:
            tables[table.name] = str((await connection.execute(select(table))).all())
    assert all("example.com" not in tables[name] for name in ("login_attempts", "audit_events", "outbox"))
    dump = "".join(tables.values())
    assert EMAIL in dump, "the dump shows what is there"
    for secret in (PASSWORD, pair.refresh.secret, token.rpartition(".")[2]):
        assert secret not in dump


async def test_purging_keeps_live_rows(auth: Auth, database: Database) -> None:
    """A purge keeps the rows of a recent registration, login and failure."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.registration.register(email="bob@example.com", password=PASSWORD, client=CLIENT)
    await mailed_tokens(auth, database)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.housekeeping.purge(Delivery(uuid7(), "auth.purge"))
    await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    async with database.sessions() as session:
        for table in (RegistrationRow, OneTimeTokenRow):
            assert await session.scalar(select(func.count()).select_from(table)) == 1

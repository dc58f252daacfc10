"""Units of work and statements for tests of the database."""

from pydantic import SecretStr
from sqlalchemy import func, select, text

from tequipy_platform import SystemClock
from tequipy_platform.database import Database, DatabaseSettings, uuid7
from tequipy_platform.messaging import SqlUnitOfWork
from tequipy_platform.messaging.models import OutboxRow


def settings(url: str, **changes: object) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"url": SecretStr(url), **changes})


def unit_of_work(database: Database) -> SqlUnitOfWork:
    return SqlUnitOfWork(database, SystemClock(), uuid7)


async def outbox_rows(database: Database) -> int:
    async with database.sessions() as session:
        return await session.scalar(select(func.count()).select_from(OutboxRow)) or 0


async def outbox_add(database: Database) -> None:
    async with unit_of_work(database) as work:
        work.outbox.add("test.do")
        await work.session.flush()


async def select_one(database: Database) -> None:
    async with unit_of_work(database) as work:
        await work.session.execute(text("select 1"))


async def execute(database: Database, statement: str) -> None:
    async with unit_of_work(database) as work:
        await work.session.execute(text(statement))

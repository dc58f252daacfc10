"""Processes of auth with one PostgreSQL database, and the mails that they send."""

from typing import Any

from sqlalchemy import select

from tequipy_auth import CACHE_POLICIES, Auth, Client
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform import Delivery, Mail
from tequipy_platform.database import Database
from tequipy_platform.messaging.models import OutboxRow
from tequipy_platform.testing import RecordingMailer

PASSWORD = "correct horse battery staple"
EMAIL = "Ada@Example.com"
CLIENT = Client("2001:db8::1", "test")


def make_auth(database: Database, **changed: Any) -> Auth:
    settings = AuthSettings.model_validate({"bcrypt_cost": 4, "hashing_queue": 100} | changed)
    return build_auth(
        settings,
        environment="test",
        public_url="https://app.example.com/",
        database=database,
        cache=MemoryCacheManager(CACHE_POLICIES),
    )


async def sent_mails(auth: Auth, database: Database) -> list[Mail]:
    """Run the unfinished tasks of the outbox and return the newly sent mails."""
    mailer = RecordingMailer()
    unsent = select(OutboxRow).where(OutboxRow.task == "auth.send_mail", OutboxRow.state != "done")
    async with database.sessions() as session:
        rows = list(await session.scalars(unsent))
    for row in rows:
        await auth.mailing(mailer).send_mail(Delivery(row.id, "auth.send_mail"), **row.payload)
    return mailer.mails


async def mailed_tokens(auth: Auth, database: Database) -> list[str]:
    """Run the tasks of the outbox and return the tokens of the links."""
    return [mail.text.partition("#token=")[2].split()[0] for mail in await sent_mails(auth, database)]

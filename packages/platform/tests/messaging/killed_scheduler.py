"""A scheduler that kills itself, started as `killed_scheduler.py DATABASE before_commit|after_commit NOW`."""

import asyncio
import os
import signal
import sys
from datetime import datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import DateTime, event, literal

from tequipy_platform import Task
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.messaging import build_scheduler


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(database_url: str, moment: str, now: str) -> None:
    async with build_database(DatabaseSettings(url=SecretStr(database_url))) as database:
        scheduler = build_scheduler(database, [Task("test.often", every=timedelta(seconds=10))])
        scheduler._now = literal(datetime.fromisoformat(now), DateTime(timezone=True))
        if moment == "before_commit":
            event.listen(database.engine.sync_engine, "commit", die)
        else:
            setattr(database, "notify", die)  # noqa: B010 -- mypy refuses the assignment
        await scheduler.add_due()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

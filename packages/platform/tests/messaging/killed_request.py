"""A request with a key whose process kills itself: `killed_request.py DATABASE before_commit|after_commit`."""

import asyncio
import os
import signal
import sys
from typing import Final
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import event

from tequipy_platform import Delivery, IdempotentRequest, SystemClock
from tequipy_platform.database import DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork

EFFECT: Final = Delivery(UUID(int=1), "effect")
"""The claim of this delivery is the effect of the request."""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(database_url: str, moment: str) -> None:
    request = IdempotentRequest("POST /things", "key", b"")
    async with build_database(DatabaseSettings(url=SecretStr(database_url))) as database:
        async with SqlUnitOfWork(database, SystemClock(), uuid7) as work:
            assert await work.idempotency.begin("caller", request) is None
            assert await work.inbox.take(EFFECT)
            await work.idempotency.keep("caller", request, {"made": "thing"})
            if moment == "before_commit":
                event.listen(database.engine.sync_engine, "commit", die)
        die()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

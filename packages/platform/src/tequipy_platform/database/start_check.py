"""The check at the start of a process that the database can store every text."""

import asyncio
from typing import Final

from tequipy_platform.database.encoding import WrongEncoding
from tequipy_platform.database.engine import build_database
from tequipy_platform.database.settings import DatabaseSettings
from tequipy_platform.settings import refuse

_START_SECONDS: Final = 5.0


def refuse_wrong_encoding(settings: DatabaseSettings, *, variable: str) -> None:
    """End the process with status 78 and one line if the database's encoding is not UTF8; runs its own event loop.

    The line begins with `variable`, the name under which the app reads the database's URL (`variable_of`).
    A database that does not answer within 5 s is left to the readiness check.
    """
    fault = asyncio.run(_encoding_fault(settings))
    if fault is not None:
        refuse([f"{variable}: {fault}"])


async def _encoding_fault(settings: DatabaseSettings) -> str | None:
    async with build_database(settings) as database:
        ping = asyncio.create_task(database.ping())
        await asyncio.wait({ping}, timeout=_START_SECONDS)
        error = ping.exception() if ping.done() else None
        ping.cancel()
        return str(error) if isinstance(error, WrongEncoding) else None

"""The relay as it ships, but it dies (`kill -9`) whenever it has published and not yet marked what it has published.

It is started again at once, and lives on when it has died as often as its argument says.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tequipy_devstack.proving.repeated_runs import fork_for_each_run
from tequipy_platform import Batch
from tequipy_platform.infrastructure.unpublished import SqlUnpublishedMessages
from tequipy_worker.cli import main

lend = SqlUnpublishedMessages.batch


@asynccontextmanager
async def lend_and_die(self: SqlUnpublishedMessages, limit: int) -> AsyncIterator[Batch]:
    """Lend a batch, and end when the borrower has published it."""
    async with lend(self, limit) as batch:
        yield batch
        if batch.published:
            print("died", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if fork_for_each_run(deaths=int(sys.argv[1])):
        SqlUnpublishedMessages.batch = lend_and_die  # type: ignore[method-assign]  # -- the moment that is to be hit
    main(["relay"])

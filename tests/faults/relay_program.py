"""The shipped relay, killed (`kill -9`) whenever it has published messages and not yet marked them.

It is started again at once, and survives after the number of deaths in its argument.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tequipy_devstack.proving.repeated_runs import fork_for_each_run
from tequipy_platform import Batch
from tequipy_platform.messaging.unpublished import SqlUnpublishedMessages
from tequipy_worker.cli import main

lend = SqlUnpublishedMessages.batch


@asynccontextmanager
async def lend_and_die(self: SqlUnpublishedMessages, limit: int) -> AsyncIterator[Batch]:
    """Lock a batch, and die when its messages have been published."""
    async with lend(self, limit) as batch:
        yield batch
        if batch.published:
            print("died", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if fork_for_each_run(deaths=int(sys.argv[1])):
        SqlUnpublishedMessages.batch = lend_and_die  # type: ignore[method-assign]  # -- kills the relay at this step
    main(["relay"])

"""The shipped API, killed (`kill -9`) after each commit that writes to the outbox, and started again."""

import os
import signal
import sys

from sqlalchemy import event
from sqlalchemy.orm import Session, UOWTransaction

from tequipy_api.cli import main
from tequipy_devstack.proving.repeated_runs import fork_for_each_run
from tequipy_platform.messaging.models import OutboxRow


def remember(session: Session, _: UOWTransaction) -> None:
    """Record that this transaction has written to the outbox."""
    if any(isinstance(row, OutboxRow) for row in session.new):
        session.info["asks_for_a_task"] = True


def die(session: Session) -> None:
    """Kill the process right after the commit, before anything else happens."""
    if session.info.get("asks_for_a_task"):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__" and fork_for_each_run():
    event.listen(Session, "after_flush", remember)
    event.listen(Session, "after_commit", die)
    main(["serve", *sys.argv[1:]])

"""What really happened in a history, and the promises that it is compared with."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from tequipy_observability import current_context
from tequipy_platform import RetryPolicy

from .broker import VISIBILITY
from .processes import CURRENT, Process

REDELIVERY = timedelta(seconds=VISIBILITY)
SETTLED = {"done", "dead", "discarded"}


class BrokenPromiseError(AssertionError):
    """A promise of the outbox was broken."""


@dataclass
class Run:
    """An attempt that has begun."""

    process: Process
    number: int
    began: datetime
    ended: bool = False
    """Whether its outcome was stored."""
    known: bool = True
    """Whether its process was told that it began."""


@dataclass(frozen=True)
class Before:
    """The state of a message before an attempt at it begins."""

    state: str
    due: bool


@dataclass
class Truth:
    """What handlers did to each message, and what the log said."""

    policies: dict[str, RetryPolicy]
    effects: Counter[UUID] = field(default_factory=Counter)
    """Committed effects in the database."""
    sent: Counter[UUID] = field(default_factory=Counter)
    """Effects outside the database."""
    started: Counter[UUID] = field(default_factory=Counter)
    """Calls of handlers."""
    raised: Counter[UUID] = field(default_factory=Counter)
    runs: dict[UUID, list[Run]] = field(default_factory=dict)
    logged: set[tuple[str, str]] = field(default_factory=set)
    """Level and message id of each record that a living process logged."""
    succeeded: set[UUID] = field(default_factory=set)
    killed_unlogged: set[UUID] = field(default_factory=set)
    """Messages whose process died after it had stored the dead letter, before it could log it."""
    clock_stepped: bool = False
    broken: list[str] = field(default_factory=list)
    """Broken promises, which are raised outside of the code under test, because that handles errors."""

    def report(self, text: str) -> None:
        self.broken.append(text)

    def raise_reported(self) -> None:
        if self.broken:
            raise BrokenPromiseError("; ".join(self.broken))

    def check_begin(self, row_id: UUID, before: Before, run: Run, *, after_death: bool, redelivered: bool) -> None:
        """Compare an attempt that has begun with those before it."""
        if row_id in self.succeeded:
            self.report(f"an attempt at {row_id} began after one had succeeded")
        elif before.state in SETTLED:
            self.report(f"an attempt at {row_id} began after it was {before.state}")
        elif not before.due:
            self.report(f"an attempt at {row_id} began before it was due")
        runs = self.runs.setdefault(row_id, [])
        last = runs[-1] if runs else None
        if last is not None:
            name = f"attempt {last.number} at {row_id}"
            if after_death and last.ended:
                self.report(f"{name} has an outcome and counts as a death")
            # A process that calls `begin` again, because it got no answer, has not died.
            elif not after_death and not last.ended and last.process is not run.process:
                self.report(f"{name} has no outcome and counts as no death")
            lives = last.process.alive and last.known and run.began - last.began < REDELIVERY
            if after_death and lives and not redelivered and not self.clock_stepped:
                self.report(f"{name} runs and counts as a death")
        runs.append(run)

    def check_end(self, row_id: UUID, number: int, outcome: str, *, changed: bool) -> None:
        """Check that a late outcome, other than a success, has changed nothing."""
        runs = self.runs[row_id]
        next(run for run in runs if run.number == number).ended = True
        if changed and outcome != "succeed" and runs[-1].number != number:
            self.report(f"the late outcome of attempt {number} has changed {row_id}")

    def check_effects(self) -> None:
        """Compare the effects in the database with the promise of exactly one."""
        for row_id, count in self.effects.items():
            if count > 1:
                self.report(f"{row_id} had its effect {count} times")


class LogCapture(logging.Handler):
    """Keeps level and message id of the records of living processes."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(logging.WARNING)
        self.truth = truth

    def emit(self, record: logging.LogRecord) -> None:
        process = CURRENT.get()
        if process is not None and not process.alive:
            return
        named = getattr(record, "message_id", None) or current_context().task_id
        if named is not None:
            self.truth.logged.add((record.levelname, str(named)))

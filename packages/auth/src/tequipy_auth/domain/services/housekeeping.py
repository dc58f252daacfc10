"""Deletion of expired rows."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from tequipy_auth.domain.policy import LEEWAY, MIN_AUDIT_RETENTION, AuthPolicy
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.mail_budget import WINDOW
from tequipy_platform import Clock, Delivery

BATCH_SIZE: Final = 500
"""The number of rows that one transaction deletes."""

ENDED_SESSION_RETENTION: Final = timedelta(days=7)
"""How long ended sessions are kept, so that their refresh tokens get a precise error."""


class _Purge(Protocol):
    """The signature of a repository's `purge` method."""

    def __call__(self, *, before: datetime, limit: int) -> Awaitable[int]: ...


class Housekeeping:
    """Deletes expired rows; safe to repeat and to run concurrently."""

    def __init__(self, unit_of_work: Callable[[], AuthUnitOfWork], clock: Clock, policy: AuthPolicy) -> None:
        self._unit_of_work = unit_of_work
        self._policy = policy
        self._clock = clock

    async def purge(self, delivery: Delivery) -> None:  # noqa: ARG002 -- idempotent, so it needs no inbox
        """Run the task `auth.purge`: delete expired rows, and audit events older than `audit_retention`."""
        now = self._clock.now()
        await self._purge(lambda work: work.registrations.purge, now)
        await self._purge(lambda work: work.one_time_tokens.purge, now)
        await self._purge(lambda work: work.devices.purge, now)
        await self._purge(lambda work: work.attempts.purge, now)
        await self._purge(lambda work: work.mail_charges.purge, now - WINDOW)
        await self._purge(lambda work: work.sessions.purge, now - ENDED_SESSION_RETENTION)
        # The database compares with its own clock, which may be behind ours.
        retention = max(self._policy.audit_retention, MIN_AUDIT_RETENTION + LEEWAY)
        await self._purge(lambda work: work.audit.purge, now - retention)

    async def _purge(self, of: Callable[[AuthUnitOfWork], _Purge], before: datetime) -> None:
        forgotten = BATCH_SIZE
        while forgotten == BATCH_SIZE:
            async with self._unit_of_work() as work:
                forgotten = await of(work)(before=before, limit=BATCH_SIZE)

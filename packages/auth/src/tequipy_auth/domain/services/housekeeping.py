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


class _Purgeable(Protocol):
    """A repository with a `purge` method."""

    def purge(self, *, before: datetime, limit: int) -> Awaitable[int]: ...


class Housekeeping:
    """Deletes expired rows; safe to repeat and to run concurrently."""

    def __init__(self, unit_of_work: Callable[[], AuthUnitOfWork], clock: Clock, policy: AuthPolicy) -> None:
        self._unit_of_work = unit_of_work
        self._policy = policy
        self._clock = clock

    async def purge(self, _delivery: Delivery) -> None:
        """Run the task `auth.purge`: delete expired rows, and audit events older than `audit_retention`."""
        now = self._clock.now()
        await self._purge(lambda work: work.registrations, now)
        await self._purge(lambda work: work.invitations, now)
        await self._purge(lambda work: work.one_time_tokens, now)
        await self._purge(lambda work: work.email_changes, now)
        await self._purge(lambda work: work.devices, now)
        await self._purge(lambda work: work.attempts, now)
        await self._purge(lambda work: work.mail_charges, now - WINDOW)
        await self._purge(lambda work: work.sessions, now - ENDED_SESSION_RETENTION)
        # The database compares with its own clock, which may be behind ours.
        retention = max(self._policy.audit_retention, MIN_AUDIT_RETENTION + LEEWAY)
        await self._purge(lambda work: work.audit, now - retention)

    async def _purge(self, repository: Callable[[AuthUnitOfWork], _Purgeable], before: datetime) -> None:
        """Delete rows in batches, each in a transaction of its own, so that row locks are held briefly."""
        deleted = BATCH_SIZE
        while deleted == BATCH_SIZE:
            async with self._unit_of_work() as work:
                deleted = await repository(work).purge(before=before, limit=BATCH_SIZE)

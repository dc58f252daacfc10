"""Forgetting what is over."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from tequipy_auth.domain.policy import LEEWAY, MIN_AUDIT_RETENTION, AuthPolicy
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.mail_budget import WINDOW
from tequipy_platform import Clock, Delivery

BATCH_SIZE: Final = 500
"""Rows that one transaction forgets."""

ENDED_SESSION_RETENTION: Final = timedelta(days=7)
"""How long an ended session is remembered, so that its refresh token is told why it is of no use."""


class _Purge(Protocol):
    """What every repository calls `purge`."""

    def __call__(self, *, before: datetime, limit: int) -> Awaitable[int]: ...


class Housekeeping:
    """Keeps the tables of what is temporary small; harmless when repeated, also at once."""

    def __init__(self, unit_of_work: Callable[[], AuthUnitOfWork], clock: Clock, policy: AuthPolicy) -> None:
        self._unit_of_work = unit_of_work
        self._policy = policy
        self._clock = clock

    async def purge(self, delivery: Delivery) -> None:  # noqa: ARG002 -- harmless when repeated: it needs no inbox
        """Perform the task `auth.purge`: forget what is over, and audit events older than `audit_retention`."""
        now = self._clock.now()
        await self._purge(lambda work: work.registrations.purge, now)
        await self._purge(lambda work: work.one_time_tokens.purge, now)
        await self._purge(lambda work: work.devices.purge, now)
        await self._purge(lambda work: work.attempts.purge, now)
        await self._purge(lambda work: work.mail_charges.purge, now - WINDOW)
        await self._purge(lambda work: work.sessions.purge, now - ENDED_SESSION_RETENTION)
        # The database refuses younger ones by its own clock, which ours may be ahead of.
        retention = max(self._policy.audit_retention, MIN_AUDIT_RETENTION + LEEWAY)
        await self._purge(lambda work: work.audit.purge, now - retention)

    async def _purge(self, of: Callable[[AuthUnitOfWork], _Purge], before: datetime) -> None:
        forgotten = BATCH_SIZE
        while forgotten == BATCH_SIZE:
            async with self._unit_of_work() as work:
                forgotten = await of(work)(before=before, limit=BATCH_SIZE)

"""The daily activity: kept up to date with the audit, and read from the table."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, timedelta
from typing import Final

from tequipy_auth import AuditAction, AuditLog, Outcome
from tequipy_platform import Clock, Delivery, retry_conflicts
from tequipy_reporting.domain.activity import CountedDay, DailyActivity, countable, days_of, slices_to_compare
from tequipy_reporting.domain.ports import ReportMetrics
from tequipy_reporting.domain.reports import Period
from tequipy_reporting.domain.repositories import ReportingUnitOfWork

ACTIVE: Final = (AuditAction.LOGIN_OK, AuditAction.TOKEN_REFRESHED)
"""The actions that make an account an active one."""


class ActivityService:
    """Counts the events of auth's audit by days; safe to repeat and to run concurrently.

    A day is counted again when the audit has more events for it than were counted, however late they arrived: the audit
    is append-only. It is never replaced by a count of fewer events, which only the audit's purge can cause.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], ReportingUnitOfWork],
        *,
        audit_log: AuditLog,
        audit_retention: timedelta,
        clock: Clock,
        metrics: ReportMetrics,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._audit_log = audit_log
        self._audit_retention = audit_retention
        self._clock = clock
        self._metrics = metrics

    async def days(self, period: Period) -> Sequence[DailyActivity]:
        """Return each day of the period from the table, those without events too; raises `Invalid` (`Period.check`)."""
        period.check(self._clock.now().astimezone(UTC).date())
        async with self._unit_of_work() as work:
            stored = {each.day: each for each in await work.activity.days(period)}
        return [stored.get(day) or DailyActivity(day) for day in days_of(period)]

    async def aggregate(self, _delivery: Delivery) -> None:
        """Run the task `reporting.aggregate_activity`: count days again whose events have become more."""
        now = self._clock.now()
        for period in slices_to_compare(now, self.countable()):
            events = await self._audit_log.counts(period.since, period.until)
            async with self._unit_of_work() as work:
                counted = await work.activity.events(period)
            for day in sorted(events, reverse=True):
                if events[day] > counted.get(day, 0):
                    await self._count(day, events[day])
        self._metrics.aggregated(at=now)

    def countable(self) -> Period:
        """Return the days that can be counted: those that the audit holds as a whole."""
        return countable(self._clock.now(), self._audit_retention)

    async def recount(self, day: date) -> bool:
        """Count a day again; return False if it was kept, because the audit holds fewer events than were counted."""
        period = Period(day, day)
        events = await self._audit_log.counts(period.since, period.until)
        return await self._count(day, events.get(day, 0))

    @retry_conflicts
    async def _count(self, day: date, events: int) -> bool:
        """Count a day and store it; `events` was read before, so events that arrive meanwhile cause another count."""
        activity = DailyActivity(
            day,
            registrations=await self._events(day, AuditAction.REGISTERED, outcome=Outcome.SUCCESS),
            logins=await self._events(day, AuditAction.LOGIN_OK),
            failed_logins=await self._events(day, AuditAction.LOGIN_FAILED),
            active_users=await self._events(day, *ACTIVE, accounts=True),
        )
        async with self._unit_of_work() as work:
            stored = await work.activity.put(CountedDay(activity, events, self._clock.now()))
        if stored:
            self._metrics.day_counted()
        return stored

    async def _events(
        self, day: date, *actions: AuditAction, outcome: Outcome | None = None, accounts: bool = False
    ) -> int:
        period = Period(day, day)
        counts = await self._audit_log.counts(period.since, period.until, actions, outcome=outcome, accounts=accounts)
        return counts.get(day, 0)

"""The weekly mail about the activity, to every administrator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Final
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, UUID, uuid5

from tequipy_auth import ADMIN, AdministrationService, User, UserFilter, UserStatus
from tequipy_platform import (
    Clock,
    Delivery,
    Lease,
    Mail,
    Mailer,
    MailTemplates,
    MailUnavailable,
    NotFound,
    PageRequest,
    retry_conflicts,
)
from tequipy_reporting.domain.activity import DailyActivity, last_week, week_of
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.domain.services.activity import ActivityService
from tequipy_reporting.domain.task_names import SEND_WEEKLY_MAIL

LEASE: Final = timedelta(seconds=30)
"""How long an attempt may take; below every visibility timeout, so that a redelivery finds an expired lease."""
TEMPLATE: Final = "weekly_activity"


class WeeklyMailService:
    """Mails the activity of the last week to all active administrators with a verified address."""

    def __init__(
        self,
        unit_of_work: Callable[[], ReportingUnitOfWork],
        *,
        administration: AdministrationService,
        activity: ActivityService,
        mailer: Mailer,
        templates: MailTemplates,
        public_url: str,
        clock: Clock,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._administration = administration
        self._activity = activity
        self._mailer = mailer
        self._templates = templates
        self._public_url = public_url
        self._clock = clock

    @retry_conflicts
    async def request(self, delivery: Delivery) -> None:
        """Run the task `reporting.weekly_mail`: add a message for each administrator, once for each week.

        Two occurrences can run in the same week, when the first one has waited for a worker.
        """
        week = last_week(self._clock.now()).first_day.isoformat()
        recipients = await self._recipients()
        async with self._unit_of_work() as work:
            if not await work.inbox.take(replace(delivery, id=uuid5(NAMESPACE_URL, f"{delivery.task}:{week}"))):
                return
            for user in recipients:
                work.outbox.add(SEND_WEEKLY_MAIL, user_id=str(user.id), week=week)

    async def send(self, delivery: Delivery, *, user_id: str, week: str) -> None:
        """Run the task `reporting.send_weekly_mail`; a repeated delivery sends nothing, or the same Message-ID again.

        Raises `MailUnavailable` (retried) and `MailRejected` (final).
        """
        async with self._unit_of_work() as work:
            lease = await work.inbox.lease(delivery, LEASE)
        if lease is Lease.HELD:
            raise MailUnavailable("Another attempt is sending this mail.")
        if lease is Lease.DONE:
            return
        try:
            await self._deliver(delivery, UUID(user_id), date.fromisoformat(week))
        except Exception:
            async with self._unit_of_work() as work:
                await work.inbox.release(delivery)
            raise
        async with self._unit_of_work() as work:
            await work.inbox.done(delivery)

    async def _deliver(self, delivery: Delivery, user_id: UUID, monday: date) -> None:
        try:
            user = await self._administration.user(user_id)
        except NotFound:  # erased meanwhile
            return
        if not _is_recipient(user):
            return
        before = await self._activity.days(week_of(monday - timedelta(days=7)))
        values = _values(await self._activity.days(week_of(monday)), before)
        text = self._templates.render(TEMPLATE, public_url=self._public_url, **values)
        message_id = f"<{delivery.id}@{urlsplit(self._public_url).hostname}>"
        await self._mailer.send(Mail(user.email.written, text.subject, text.text, message_id, html=text.html))

    async def _recipients(self) -> Sequence[User]:
        found: list[User] = []
        request, wanted = PageRequest(), UserFilter(status=UserStatus.ACTIVE, role=ADMIN)
        while True:
            page = await self._administration.users(request, wanted)
            found += filter(_is_recipient, page.items)
            if page.next_after is None:
                return found
            request = PageRequest(after=page.next_after)


def _is_recipient(user: User) -> bool:
    return user.status is UserStatus.ACTIVE and user.email_verified and ADMIN in user.roles


def _values(days: Sequence[DailyActivity], before: Sequence[DailyActivity]) -> Mapping[str, object]:
    busiest = max(days, key=lambda each: each.active_users)
    totals = {
        f"{name}{suffix}": f"{sum(getattr(each, name) for each in week):,}"
        for name in ("registrations", "logins", "failed_logins")
        for suffix, week in (("", days), ("_before", before))
    }
    return {
        **totals,
        "first_day": days[0].day.isoformat(),
        "last_day": days[-1].day.isoformat(),
        "active_users": f"{busiest.active_users:,}",
        "busiest_day": busiest.day.isoformat(),
    }

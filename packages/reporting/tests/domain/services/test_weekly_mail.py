"""The weekly mail to administrators, with the in-memory fakes."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from tequipy_auth import Auth, UserStatus
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Delivery, Lease, Mail, Mailer, MailRejected, MailUnavailable
from tequipy_platform.testing import FrozenClock, RecordingMailer
from tequipy_reporting import DailyActivity, WeeklyMailService
from tequipy_reporting.domain.activity import CountedDay
from tequipy_reporting.domain.services.weekly_mail import LEASE
from tequipy_reporting.testing import MemoryReportingUnitOfWork, build_fake_reporting

MONDAY = datetime(2026, 11, 23, 6, tzinfo=UTC)
FIRST, DAY = date(2026, 11, 16), timedelta(days=1)
TASK, SCHEDULE = "reporting.send_weekly_mail", Delivery(UUID(int=1), "reporting.weekly_mail")
PASSWORD = "correct horse battery staple"


class FailingMailer(Mailer):
    """Refuses every mail with the given error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send(self, mail: Mail) -> None:  # noqa: ARG002 -- the port's signature
        raise self._error


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(MONDAY)


@pytest.fixture
def auth_work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)


@pytest.fixture
async def auth(auth_work: MemoryAuthUnitOfWork, clock: FrozenClock) -> Auth:
    """Return auth with three administrators."""
    auth = build_fake_auth(auth_work, clock=clock)
    for name in ("ada", "bob", "eve"):
        await auth.registration.create_admin(email=f"{name}@example.com", password=PASSWORD)
    return auth


@pytest.fixture
def mailer() -> RecordingMailer:
    return RecordingMailer()


def service(work: MemoryReportingUnitOfWork, auth: Auth, clock: FrozenClock, mailer: Mailer) -> WeeklyMailService:
    return build_fake_reporting(work, auth=auth, clock=clock).weekly_mail(mailer)


@pytest.fixture
def weekly(
    work: MemoryReportingUnitOfWork, auth: Auth, clock: FrozenClock, mailer: RecordingMailer
) -> WeeklyMailService:
    return service(work, auth, clock, mailer)


def change(auth_work: MemoryAuthUnitOfWork, name: str, **values: object) -> None:
    (user,) = [row for row in auth_work.users.rows.values() if row.email.canonical.startswith(name)]
    auth_work.users.rows[user.id] = replace(user, **values)  # type: ignore[arg-type]  # of several types


async def send_all(work: MemoryReportingUnitOfWork, weekly: WeeklyMailService) -> None:
    for number, task in enumerate(work.outbox.tasks, start=10):
        assert task.task == TASK
        await weekly.send(Delivery(UUID(int=number), TASK), **task.payload)  # type: ignore[arg-type]  # JSON


async def test_every_administrator_gets_the_activity_of_the_last_week(
    weekly: WeeklyMailService, work: MemoryReportingUnitOfWork, mailer: RecordingMailer
) -> None:
    """The totals from Monday to Sunday and of the week before, and the day with the most active accounts."""
    for offset in range(-8, 9):
        day = FIRST + offset * DAY
        numbers = {
            "registrations": 1,
            "logins": 1000 + offset,
            "failed_logins": 2,
            "active_users": 50 - abs(offset - 2),
        }
        work.activity.rows[day] = CountedDay(DailyActivity(day, **numbers), 9, MONDAY)
    await weekly.request(SCHEDULE)
    await send_all(work, weekly)
    assert sorted(mail.to for mail in mailer.mails) == ["ada@example.com", "bob@example.com", "eve@example.com"]
    assert {mail.subject for mail in mailer.mails} == {"weekly_activity"}
    values = dict(line.split(": ") for line in mailer.mails[0].text.splitlines())
    assert values == {
        "public_url": "http://testserver",
        "first_day": "2026-11-16",
        "last_day": "2026-11-22",
        "registrations": "7",
        "registrations_before": "7",
        "logins": f"{7000 + sum(range(7)):,}",
        "logins_before": f"{7000 + sum(range(-7, 0)):,}",
        "failed_logins": "14",
        "failed_logins_before": "14",
        "active_users": "50",
        "busiest_day": "2026-11-18",
    }


async def test_an_occurrence_adds_its_messages_once(weekly: WeeklyMailService, work: MemoryReportingUnitOfWork) -> None:
    """A schedule that is delivered twice adds one message for each administrator; one that is late, the same week."""
    await weekly.request(SCHEDULE)
    await weekly.request(SCHEDULE)
    assert len(work.outbox.tasks) == 3
    assert {task.payload["week"] for task in work.outbox.tasks} == {"2026-11-16"}


async def test_two_occurrences_in_a_week_are_one_mail(
    weekly: WeeklyMailService, work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """An occurrence that has waited for a worker until the next one adds no messages for the same week."""
    for number in (1, 2):
        await weekly.request(replace(SCHEDULE, id=UUID(int=number)))
    assert len(work.outbox.tasks) == 3
    clock.advance(7 * DAY)
    await weekly.request(replace(SCHEDULE, id=UUID(int=3)))
    assert [task.payload["week"] for task in work.outbox.tasks] == ["2026-11-16"] * 3 + ["2026-11-23"] * 3


@pytest.mark.parametrize(
    "changes", [{"roles": ("support",)}, {"status": UserStatus.DISABLED}, {"email_verified": False}], ids=str
)
async def test_only_active_verified_administrators_get_it(
    *,
    weekly: WeeklyMailService,
    work: MemoryReportingUnitOfWork,
    auth_work: MemoryAuthUnitOfWork,
    mailer: RecordingMailer,
    changes: dict[str, object],
) -> None:
    """Both when the messages are added and when they are sent, which may be a day later."""
    change(auth_work, "eve", **changes)
    await weekly.request(SCHEDULE)
    assert len(work.outbox.tasks) == 2
    change(auth_work, "bob", **changes)
    await send_all(work, weekly)
    assert [mail.to for mail in mailer.mails] == ["ada@example.com"]


async def test_an_erased_account_gets_nothing(weekly: WeeklyMailService, mailer: RecordingMailer) -> None:
    """The message of an account that does not exist any more ends without a mail."""
    await weekly.send(Delivery(UUID(int=9), TASK), user_id=str(UUID(int=999)), week=FIRST.isoformat())
    assert mailer.mails == []


async def test_all_of_many_administrators_get_it(
    weekly: WeeklyMailService, work: MemoryReportingUnitOfWork, auth: Auth
) -> None:
    """More than one page of administrators."""
    for number in range(60):
        await auth.registration.create_admin(email=f"admin{number}@example.com", password=PASSWORD)
    await weekly.request(SCHEDULE)
    assert len({task.payload["user_id"] for task in work.outbox.tasks}) == 63


async def test_a_repeated_delivery_sends_one_mail(
    weekly: WeeklyMailService, work: MemoryReportingUnitOfWork, mailer: RecordingMailer
) -> None:
    """A message that is delivered twice sends one mail."""
    await weekly.request(SCHEDULE)
    for _ in range(2):
        await send_all(work, weekly)
    assert len(mailer.mails) == 3


@pytest.mark.parametrize("error", [MailUnavailable(), MailRejected(), RuntimeError()], ids=repr)
async def test_a_failed_attempt_releases_its_lease(
    *,
    work: MemoryReportingUnitOfWork,
    auth: Auth,
    clock: FrozenClock,
    weekly: WeeklyMailService,
    mailer: RecordingMailer,
    error: Exception,
) -> None:
    """The next attempt need not wait, and its mail has the Message-ID of its message."""
    await weekly.request(SCHEDULE)
    with pytest.raises(type(error)):
        await send_all(work, service(work, auth, clock, FailingMailer(error)))
    await send_all(work, weekly)
    assert {mail.message_id for mail in mailer.mails} == {f"<{UUID(int=n)}@testserver>" for n in (10, 11, 12)}


async def test_concurrent_attempts_send_one_mail(
    weekly: WeeklyMailService, work: MemoryReportingUnitOfWork, mailer: RecordingMailer, clock: FrozenClock
) -> None:
    """While one attempt holds the lease, another one raises an error that leads to a retry; a dead one's expires."""
    await weekly.request(SCHEDULE)
    del work.outbox.tasks[1:]
    assert await work.inbox.lease(Delivery(UUID(int=10), TASK), LEASE) is Lease.TAKEN
    with pytest.raises(MailUnavailable):
        await send_all(work, weekly)
    assert not mailer.mails
    clock.advance(LEASE)
    await send_all(work, weekly)
    assert len(mailer.mails) == 1

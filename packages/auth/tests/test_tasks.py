"""The background tasks of auth."""

from datetime import timedelta

import pytest

from tequipy_auth import AuditAction, AuditEvent, AuthPolicy, Client, InvalidCredentials
from tequipy_auth.domain.services.housekeeping import BATCH_SIZE
from tequipy_auth.tasks import PURGE, SEND_MAIL, TASKS, build_handlers
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Delivery, MailRejected, MailSenderRefused, MailUnavailable, SystemClock
from tequipy_platform.testing import FrozenClock, RecordingMailer


async def test_outbox_messages_name_existing_tasks() -> None:
    """The task of a registration exists and accepts its payload."""
    work, mailer = MemoryAuthUnitOfWork(SystemClock()), RecordingMailer()
    auth = build_fake_auth(work)
    await auth.registration.register(email="ada@example.com", password="correct horse battery staple", client=Client())
    (asked,) = work.outbox.tasks
    handlers = {task.name: handler for task, handler in build_handlers(auth, mailer).items()}
    await handlers[asked.task](Delivery(work.new_id(), asked.task), **asked.payload)
    assert [mail.to for mail in mailer.mails] == ["ada@example.com"]


def test_mails_are_retried_for_a_day() -> None:
    """A mail is retried for 24 hours, also after a refusal or for an unknown kind; a final rejection is not."""
    day = timedelta(hours=24)
    for error in (MailUnavailable(), MailSenderRefused(), LookupError(), KeyError()):
        assert not SEND_MAIL.retry.is_final_failure(10_000, error, failing_for=day - timedelta(seconds=1))
        assert SEND_MAIL.retry.is_final_failure(1, error, failing_for=day)
    assert SEND_MAIL.retry.is_final_failure(1, MailRejected(), failing_for=timedelta(0))
    assert SEND_MAIL.retry.max_wait(10_000) == timedelta(minutes=10)


async def test_a_changed_profile_is_read_again() -> None:
    """The task of a changed account exists, and removes the profile that another process has cached."""
    work = MemoryAuthUnitOfWork(SystemClock())
    here, there = build_fake_auth(work), build_fake_auth(work)
    await here.registration.create_admin(email="ada@example.com", password="correct horse battery staple")
    (user,) = work.users.rows.values()
    assert (await there.accounts.profile(user.id)).name is None
    await here.accounts.rename(user.id, "Ada")
    (asked,) = work.outbox.tasks
    handlers = {task.name: handler for task, handler in build_handlers(there, RecordingMailer()).items()}
    await handlers[asked.task](Delivery(work.new_id(), asked.task), **asked.payload)
    assert (await there.accounts.profile(user.id)).name == "Ada"


async def test_expired_rows_are_purged_every_hour() -> None:
    """Expired registrations, devices and counters, and sessions that ended a week ago, are deleted completely."""
    clock = FrozenClock()
    work = MemoryAuthUnitOfWork(clock)
    auth = build_fake_auth(work, clock=clock)
    purge = build_handlers(auth, RecordingMailer())[PURGE]
    assert PURGE.every == timedelta(hours=1)
    client = Client("192.0.2.1")
    password = "correct horse battery staple"
    await auth.registration.create_admin(email="ada@example.com", password=password)
    await auth.login.with_password(email="ada@example.com", password=password, client=client)
    for number in range(BATCH_SIZE + 1):
        await auth.registration.register(email=f"{number}@example.com", password=password, client=client)
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email="ada@example.com", password="wrong", client=client)
    clock.advance(timedelta(days=7))
    await purge(Delivery(work.new_id(), PURGE.name))
    assert (work.registrations.rows, work.attempts.rows) == ({}, {})
    assert len(work.sessions.rows) == 1, "it has ended, but may still be asked for"
    clock.advance(timedelta(days=7))
    await purge(Delivery(work.new_id(), PURGE.name))
    assert work.sessions.rows == {}
    assert len(work.devices.rows) == 1
    clock.advance(timedelta(days=365))
    await purge(Delivery(work.new_id(), PURGE.name))
    assert work.devices.rows == {}
    assert len(work.users.rows) == 1


async def test_audit_events_are_kept_for_their_retention() -> None:
    """Audit events are kept for 400 days or the configured retention; the hourly purge deletes all older ones."""
    for policy, days in (
        (AuthPolicy(), 400),
        (AuthPolicy(audit_retention=timedelta(days=30)), 30),
    ):
        clock = FrozenClock()
        work = MemoryAuthUnitOfWork(clock)
        auth = build_fake_auth(work, clock=clock, policy=policy)
        purge = build_handlers(auth, RecordingMailer())[PURGE]
        for _ in range(BATCH_SIZE + 1):
            work.audit.record(AuditEvent(AuditAction.LOGIN_OK))
        clock.advance(timedelta(seconds=1))
        work.audit.record(AuditEvent(AuditAction.LOGOUT))
        clock.advance(timedelta(days=days) - timedelta(seconds=1))
        await purge(Delivery(work.new_id(), PURGE.name))
        assert len(work.audit.rows) == BATCH_SIZE + 2
        clock.advance(timedelta(seconds=1))
        await purge(Delivery(work.new_id(), PURGE.name))
        assert [event.action for event in work.audit.events] == [AuditAction.LOGOUT]


def test_every_task_has_a_handler() -> None:
    """The catalogue and the handlers name the same tasks."""
    assert set(build_handlers(build_fake_auth(), RecordingMailer())) == set(TASKS)

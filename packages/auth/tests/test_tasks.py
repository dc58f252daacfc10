"""The background work of auth."""

from tequipy_auth import Client
from tequipy_auth.tasks import auth_tasks
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Delivery, MailRejected, MailUnavailable, SystemClock
from tequipy_platform.testing import RecordingMailer


async def test_what_the_outbox_asks_for_is_a_task() -> None:
    """The task that a registration asks for exists under that name and takes that payload."""
    work, mailer = MemoryAuthUnitOfWork(SystemClock()), RecordingMailer()
    auth = build_fake_auth(work)
    await auth.registration.register(email="ada@example.com", password="correct horse battery staple", client=Client())
    (asked,) = work.outbox.tasks
    handlers = {task.name: task.handler for task in auth_tasks(auth, mailer)}
    await handlers[asked.task](Delivery(work.new_id(), asked.task), **asked.payload)
    assert [mail.to for mail in mailer.mails] == ["ada@example.com"]


def test_an_outage_is_waited_out_and_a_refusal_is_not() -> None:
    """Five minutes without a mail server cost no mail; what is refused for good is not tried again."""
    auth = build_fake_auth()
    task, *_ = auth_tasks(auth, RecordingMailer())
    waits = [task.retry.longest_wait(failed) for failed in range(1, task.retry.attempts)]
    assert sum(wait.total_seconds() for wait in waits) / 2 >= 150, "full jitter halves the waits on average"
    assert not task.retry.gives_up(task.retry.attempts - 1, MailUnavailable())
    assert task.retry.gives_up(1, MailRejected())
    assert task.retry.gives_up(1, LookupError())

"""Worker and relay of two releases, started as `release_program.py run|relay OLD|NEW BROKER DATABASE MAIL`.

Each task has one effect in the table `public.effects`, which has no unique key: a second effect would be a second row.
The release NEW knows a further task, a further subscriber of an event, and a further field of a payload.
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from functools import partial

from celery import Celery
from pydantic import SecretStr
from sqlalchemy import text

from tequipy_platform import Delivery, Handler, Lease, Mail, Mailer, RetryPolicy, SystemClock, Task
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.mail import MailSettings, build_mailer
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log, build_unpublished_messages
from tequipy_platform.messaging.celery import (
    CelerySettings,
    TaskRuntime,
    build_celery,
    build_relay,
    run_worker,
    wire_tasks,
)

VISIBILITY = 12
VERSIONS = {"OLD": "1.0", "NEW": "2.0"}
QUICK = RetryPolicy(base=timedelta(milliseconds=200), cap=timedelta(seconds=2), deaths=50)
EFFECT = Task("release.effect", retry=QUICK)
LISTENER = Task("release.listener", on=("release.happened",), retry=QUICK)
MAIL = Task("release.mail", queue="email", retry=QUICK)
FAILING = Task("release.failing", retry=RetryPolicy(base=timedelta(seconds=90), cap=timedelta(seconds=90)))
NEW_TASK = Task("release.new_task", queue="reports", retry=QUICK)
NEW_LISTENER = Task("release.new_listener", on=("release.happened", "release.new_event"), retry=QUICK)
OLD = (EFFECT, LISTENER, MAIL, FAILING)
CATALOGUES = {"OLD": OLD, "NEW": (*OLD, NEW_TASK, NEW_LISTENER)}


class Effects:
    """Handlers whose effect is a row, written in the transaction of the inbox, or a mail."""

    def __init__(self, database: Database, mailer: Mailer) -> None:
        self._database = database
        self._mailer = mailer

    def _work(self) -> SqlUnitOfWork:
        return SqlUnitOfWork(self._database, SystemClock(), uuid7)

    async def effect(self, delivery: Delivery, *, number: int) -> None:
        async with self._work() as work:
            if await work.inbox.take(delivery):
                values = {"task": delivery.task, "number": number, "worker": os.getppid()}
                await work.session.execute(text("insert into public.effects values (:task, :number, :worker)"), values)

    async def effect_with_more(self, delivery: Delivery, *, number: int, more: str = "") -> None:  # noqa: ARG002 -- what a newer release may send
        await self.effect(delivery, number=number)

    async def mail(self, delivery: Delivery, *, number: int) -> None:
        async with self._work() as work:
            lease = await work.inbox.lease(delivery, timedelta(seconds=5))
        if lease is Lease.DONE:
            return
        if lease is Lease.HELD:
            raise RuntimeError("another attempt holds the lease")
        mail = Mail(
            to="somebody@example.com",
            subject=f"number {number}",
            text="hello",
            html="<p>hello</p>",
            message_id=f"<{delivery.id}@example.com>",
        )
        await self._mailer.send(mail)
        async with self._work() as work:
            await work.inbox.done(delivery)

    async def fail(self, delivery: Delivery, *, number: int) -> None:  # noqa: ARG002 -- as above
        async with self._work() as work:
            values = {"task": delivery.task, "number": delivery.attempt, "worker": os.getppid()}
            await work.session.execute(text("insert into public.effects values (:task, :number, :worker)"), values)
        raise RuntimeError("every attempt fails")


def build_runtime(release: str, database_url: str, mail_url: str) -> TaskRuntime:
    """Return the handlers of a release."""
    database = build_database(DatabaseSettings(url=SecretStr(database_url)), app_version=VERSIONS[release])
    mailer = build_mailer(MailSettings.model_validate({"smtp_url": mail_url}))
    effects = Effects(database, mailer)
    handlers: dict[Task, Handler] = dict.fromkeys(CATALOGUES[release], effects.effect)
    handlers |= {MAIL: effects.mail, FAILING: effects.fail}
    if release == "NEW":
        handlers[EFFECT] = effects.effect_with_more
    messages = build_message_log(database, redelivery=timedelta(seconds=VISIBILITY))
    return TaskRuntime(handlers, messages, resources=[database, mailer])


def build(release: str, broker_url: str, database_url: str, mail_url: str) -> Celery:
    """Return the app of both processes."""
    times = {
        "soft_time_limit": 8,
        "time_limit": 10,
        "visibility_timeout": VISIBILITY,
        "soft_shutdown_timeout": 2,
    }
    settings = CelerySettings(broker_url=SecretStr(broker_url), **times)
    celery = build_celery(settings, CATALOGUES[release], name="release", queues=["reports"])
    wire_tasks(celery, CATALOGUES[release], partial(build_runtime, release, database_url, mail_url))
    return celery


async def relay(release: str, celery: Celery, database_url: str) -> None:
    """Publish until the process is told to stop."""
    tasks = CATALOGUES[release]
    database = build_database(DatabaseSettings(url=SecretStr(database_url)), app_version=VERSIONS[release])
    messages = build_unpublished_messages(
        database, redelivery=timedelta(seconds=VISIBILITY), queues={task.name: task.queue for task in tasks}
    )
    async with database, messages, build_relay(celery, messages, tasks) as running:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.stop)
        await running.run()


if __name__ == "__main__":
    role, release_name, *urls = sys.argv[1:]
    app = build(release_name, *urls)
    if role == "relay":
        asyncio.run(relay(release_name, app, urls[1]))
    else:
        sys.exit(run_worker(app, queues=["default", "email", "reports"], concurrency=2, max_memory=None, patience=2))

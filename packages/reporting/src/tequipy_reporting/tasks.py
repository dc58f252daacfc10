"""The background tasks of reporting."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from tequipy_auth import ACCOUNT_ERASED
from tequipy_platform import Crontab, Handler, Mailer, MailRejected, RetryPolicy, Task
from tequipy_reporting.domain import task_names
from tequipy_reporting.domain.activity import AGGREGATE_EVERY
from tequipy_reporting.domain.ports import Writers
from tequipy_reporting.domain.reporting import Reporting

__all__ = ["TASKS", "build_handlers"]

_SHORT: Final = timedelta(seconds=30)

GENERATE_REPORT: Final = Task(
    task_names.GENERATE_REPORT,
    queue="reports",
    # The service gives up on its own (`ReportPolicy.give_up_after`); a report that kills its worker is no use.
    retry=RetryPolicy(cap=timedelta(seconds=30), lifetime=timedelta(hours=24), deaths=3),
)
REMOVE_FILES: Final = Task(
    task_names.REMOVE_FILES,
    time_limit=_SHORT,
    # Files are removed after a day without object storage too; later the hourly task finds them.
    retry=RetryPolicy(cap=timedelta(minutes=10), lifetime=timedelta(hours=24)),
)
ERASE_ACCOUNT: Final = Task(task_names.ERASE_ACCOUNT, on=(ACCOUNT_ERASED,), time_limit=_SHORT)
EXPIRE_REPORTS: Final = Task(task_names.EXPIRE_REPORTS, every=timedelta(hours=1))
RESUME_REPORTS: Final = Task(task_names.RESUME_REPORTS, every=timedelta(minutes=5), time_limit=_SHORT)
AGGREGATE_ACTIVITY: Final = Task(
    task_names.AGGREGATE_ACTIVITY,
    every=AGGREGATE_EVERY,
    queue="aggregation",
    retry=RetryPolicy(attempts=2),  # the next run does the rest
)
WEEKLY_MAIL: Final = Task(
    task_names.WEEKLY_MAIL,
    every=Crontab(minute="0", hour="6", day_of_week="1"),
    time_limit=_SHORT,
    retry=RetryPolicy(cap=timedelta(minutes=10), lifetime=timedelta(hours=24)),
)
SEND_WEEKLY_MAIL: Final = Task(
    task_names.SEND_WEEKLY_MAIL,
    queue="email",
    time_limit=_SHORT,
    # Mails survive a day without a mail server, as those of auth.
    retry=RetryPolicy(cap=timedelta(minutes=10), permanent=(MailRejected,), lifetime=timedelta(hours=24)),
)
TASKS: Final = (
    GENERATE_REPORT,
    REMOVE_FILES,
    ERASE_ACCOUNT,
    EXPIRE_REPORTS,
    RESUME_REPORTS,
    AGGREGATE_ACTIVITY,
    WEEKLY_MAIL,
    SEND_WEEKLY_MAIL,
)


def build_handlers(reporting: Reporting, writers: Writers, mailer: Mailer) -> Mapping[Task, Handler]:
    """Return a handler for each of `TASKS`; reports are written by `writers`, mails are sent with `mailer`."""
    weekly_mail = reporting.weekly_mail(mailer)
    return {
        GENERATE_REPORT: reporting.generation(writers).generate,
        REMOVE_FILES: reporting.housekeeping.remove_files,
        ERASE_ACCOUNT: reporting.personal_data.erase,
        EXPIRE_REPORTS: reporting.housekeeping.expire,
        RESUME_REPORTS: reporting.housekeeping.resume,
        AGGREGATE_ACTIVITY: reporting.activity.aggregate,
        WEEKLY_MAIL: weekly_mail.request,
        SEND_WEEKLY_MAIL: weekly_mail.send,
    }

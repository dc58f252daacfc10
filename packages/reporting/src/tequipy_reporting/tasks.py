"""The background tasks of reporting."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from tequipy_auth import ACCOUNT_ERASED
from tequipy_platform import Handler, RetryPolicy, Task
from tequipy_reporting.domain import task_names
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
TASKS: Final = (GENERATE_REPORT, REMOVE_FILES, ERASE_ACCOUNT, EXPIRE_REPORTS, RESUME_REPORTS)


def build_handlers(reporting: Reporting, writers: Writers) -> Mapping[Task, Handler]:
    """Return a handler for each of `TASKS`; reports are written by `writers`."""
    return {
        GENERATE_REPORT: reporting.generation(writers).generate,
        REMOVE_FILES: reporting.housekeeping.remove_files,
        ERASE_ACCOUNT: reporting.personal_data.erase,
        EXPIRE_REPORTS: reporting.housekeeping.expire,
        RESUME_REPORTS: reporting.housekeeping.resume,
    }

"""Requests for reports, and attempts at them, on the fakes of reporting."""

from collections.abc import Sequence
from uuid import UUID, uuid4

from tequipy_auth import Principal
from tequipy_platform import Delivery
from tequipy_platform.testing import EPOCH, AddedTask
from tequipy_reporting import Period, Report, ReportFormat, Reporting, ReportKind, ReportWriter
from tequipy_reporting.domain.task_names import GENERATE_REPORT, REMOVE_FILES
from tequipy_reporting.testing import FakeReportWriter, MemoryReportingUnitOfWork

KIND, CSV = ReportKind.USER_ACTIVITY, ReportFormat.CSV
TODAY = EPOCH.date()
PERIOD = Period(TODAY, TODAY)
PIECES = (b"at,action\r\n", b"1,login_ok\r\n")


def caller() -> Principal:
    """Return the principal of a new account."""
    return Principal(user_id=uuid4(), session_id=uuid4(), roles=("admin",), version=1, auth_time=EPOCH, amr=("pwd",))


async def ask(reporting: Reporting, principal: Principal) -> Report:
    return await reporting.reports.request(principal, KIND, CSV, PERIOD)


def turns(work: MemoryReportingUnitOfWork) -> Sequence[UUID]:
    """Return the ids of the reports whose message was added, in order."""
    return _of(work, GENERATE_REPORT)


def removals(work: MemoryReportingUnitOfWork) -> Sequence[UUID]:
    """Return the ids of the reports whose files are to be removed, in order."""
    return _of(work, REMOVE_FILES)


def _of(work: MemoryReportingUnitOfWork, task: str) -> Sequence[UUID]:
    added: list[AddedTask] = work.outbox.tasks
    return [UUID(str(each.payload["report_id"])) for each in added if each.task == task]


async def generate(
    reporting: Reporting, report_id: UUID, writer: ReportWriter | None = None, *, delivery: Delivery | None = None
) -> None:
    """Run one attempt at a report; without `delivery` it is that of a new message."""
    service = reporting.generation({(KIND, CSV): writer or FakeReportWriter(*PIECES)})
    await service.generate(delivery or Delivery(uuid4(), GENERATE_REPORT), str(report_id))

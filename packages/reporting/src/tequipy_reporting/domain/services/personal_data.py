"""What reporting holds about an account: its part of the export, and its erasure."""

from collections.abc import Callable
from uuid import UUID

from tequipy_auth import PersonalData
from tequipy_platform import JSON, Clock, Delivery, retry_conflicts
from tequipy_reporting.domain.reports import Report
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.domain.services.turns import lock_turns, remove_files


class PersonalReports(PersonalData):
    """The reports that an account has requested."""

    section = "reports"

    def __init__(self, unit_of_work: Callable[[], ReportingUnitOfWork], clock: Clock) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock

    async def export(self, user_id: UUID) -> JSON:
        """Return the requests, without the content of the reports: that is data about others."""
        async with self._unit_of_work() as work:
            return [_exported(report) for report in await work.reports.of(user_id)]

    @retry_conflicts
    async def erase(self, _delivery: Delivery, user_id: str) -> None:
        """Run the task `reporting.erase_account`: end the account's unfinished reports, and forget who asked.

        Done reports whose file names the account expire; the others belong to all who may read them.
        """
        now, account = self._clock.now(), UUID(user_id)
        async with self._unit_of_work() as work:
            await lock_turns(work, account)
            for report in await work.reports.of(account):
                if report.unfinished:
                    await work.reports.cancel(report.id, at=now)
                elif not (report.names_requester and await work.reports.expire(report.id, at=now)):
                    continue
                remove_files(work, report)
            await work.reports.forget(account)


def _exported(report: Report) -> JSON:
    return {
        "id": str(report.id),
        "kind": report.kind.value,
        "format": report.format.value,
        "from": report.period.first_day.isoformat(),
        "to": report.period.last_day.isoformat(),
        "status": report.status.value,
        "created_at": report.created_at.isoformat(),
        "finished_at": report.finished_at.isoformat() if report.finished_at else None,
        "size_bytes": report.size_bytes,
    }

"""Fair share: the reports of one account run one after the other, so that those of other accounts run between them."""

from datetime import datetime
from uuid import UUID

from tequipy_reporting.domain.reports import Report
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.domain.task_names import GENERATE_REPORT, REMOVE_FILES


async def lock_turns(work: ReportingUnitOfWork, user_id: UUID | None) -> None:
    """Serialise with other transactions that add or end reports of an account; before they change any row."""
    if user_id is not None:
        await work.reports.lock(user_id)


async def start_next(work: ReportingUnitOfWork, user_id: UUID | None, now: datetime) -> None:
    """Add the message of the account's oldest waiting report, unless one of its reports has its turn.

    Call it after `lock_turns`, when a report was added or has ended, in the same transaction. An erased account (None)
    has no unfinished reports.
    """
    if user_id is None:
        return
    unfinished = await work.reports.of(user_id, unfinished=True)
    if unfinished and all(report.enqueued_at is None for report in unfinished):
        await enqueue(work, unfinished[0], now)


async def enqueue(work: ReportingUnitOfWork, report: Report, now: datetime) -> None:
    """Add the message of a report."""
    await work.reports.enqueue(report.id, at=now)
    work.outbox.add(GENERATE_REPORT, report_id=str(report.id))


def remove_files(work: ReportingUnitOfWork, report: Report) -> None:
    """Add the message that removes a report's files, besides the one that it keeps."""
    work.outbox.add(REMOVE_FILES, report_id=str(report.id))

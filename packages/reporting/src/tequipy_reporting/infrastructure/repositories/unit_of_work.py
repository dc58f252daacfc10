"""The unit of work with all repositories on PostgreSQL."""

from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform.messaging import SqlUnitOfWork
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.infrastructure.repositories.activity import SqlActivity
from tequipy_reporting.infrastructure.repositories.reports import SqlReports


class SqlReportingUnitOfWork(SqlUnitOfWork, ReportingUnitOfWork):
    """A PostgreSQL transaction with all repositories of reporting."""

    def _bind(self, session: AsyncSession) -> None:
        self.reports = SqlReports(session)
        self.activity = SqlActivity(session)

"""The repositories on PostgreSQL."""

from tequipy_reporting.infrastructure.repositories.unit_of_work import SqlReportingUnitOfWork

__all__ = ["SqlReportingUnitOfWork"]

"""The repositories on PostgreSQL."""

from tequipy_auth.infrastructure.repositories.audit import SqlAuditLog
from tequipy_auth.infrastructure.repositories.unit_of_work import SqlAuthUnitOfWork

__all__ = ["SqlAuditLog", "SqlAuthUnitOfWork"]

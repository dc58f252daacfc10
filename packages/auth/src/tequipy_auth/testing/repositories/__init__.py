"""The repositories in memory."""

from tequipy_auth.testing.repositories.audit import MemoryAuditLog
from tequipy_auth.testing.repositories.unit_of_work import MemoryAuthUnitOfWork

__all__ = ["MemoryAuditLog", "MemoryAuthUnitOfWork"]

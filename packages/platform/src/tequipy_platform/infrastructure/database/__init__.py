"""PostgreSQL: settings, the engine and its pool, the unit of work."""

from tequipy_platform.infrastructure.database.engine import Database
from tequipy_platform.infrastructure.database.settings import DatabaseSettings
from tequipy_platform.infrastructure.database.unit_of_work import SqlUnitOfWork

__all__ = ["Database", "DatabaseSettings", "SqlUnitOfWork"]

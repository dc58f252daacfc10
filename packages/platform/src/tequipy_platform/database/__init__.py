"""PostgreSQL: settings, engine with its pool, transactions, and ids for primary keys.

Migrations are in `tequipy_platform.database.migrations`, the unit of work with outbox and inbox in
`tequipy_platform.messaging`.
"""

from tequipy_platform.database.engine import Database, build_database
from tequipy_platform.database.ids import uuid7
from tequipy_platform.database.settings import DatabaseSettings
from tequipy_platform.database.start_check import refuse_wrong_encoding
from tequipy_platform.database.tables import COLUMN_TYPES, delete_batch, schema_metadata
from tequipy_platform.database.transaction import SqlTransaction

__all__ = [
    "COLUMN_TYPES",
    "Database",
    "DatabaseSettings",
    "SqlTransaction",
    "build_database",
    "delete_batch",
    "refuse_wrong_encoding",
    "schema_metadata",
    "uuid7",
]

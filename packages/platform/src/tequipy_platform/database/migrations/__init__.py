"""Migrations: one Alembic environment for the schemas of all packages, and a check that they have been run."""

from tequipy_platform.database.migrations.history import History, schema_name
from tequipy_platform.database.migrations.runner import MigrationFailed, migrate
from tequipy_platform.database.migrations.schema_check import SchemaBehind, build_schema_check

__all__ = ["History", "MigrationFailed", "SchemaBehind", "build_schema_check", "migrate", "schema_name"]

"""Migrations: one Alembic environment for the schemas of all packages, and a check that they have been run.

Alembic is imported with `migrate`, which processes that serve do not use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tequipy_platform.database.migrations.history import History, schema_name
from tequipy_platform.database.migrations.schema_check import SchemaBehind, build_schema_check

if TYPE_CHECKING:
    from tequipy_platform.database.migrations.runner import MigrationFailed, migrate
else:

    def __getattr__(name: str) -> object:
        if name in {"MigrationFailed", "migrate"}:
            return getattr(import_module(f"{__name__}.runner"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["History", "MigrationFailed", "SchemaBehind", "build_schema_check", "migrate", "schema_name"]

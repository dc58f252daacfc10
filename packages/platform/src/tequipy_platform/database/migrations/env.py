"""The Alembic environment of all histories: runs one history on the connection that `migrate` opened."""

from collections.abc import MutableMapping
from typing import Any

from alembic import context
from sqlalchemy import Connection

from tequipy_platform.database.migrations.history import VERSION_TABLE, History

history: History = context.config.attributes["history"]
connection: Connection = context.config.attributes["connection"]


def _is_ours(name: str | None, kind: str, _parents: MutableMapping[Any, str | None]) -> bool:
    """Return whether Alembic compares the object with the models: other schemas belong to other packages."""
    return kind != "schema" or name == history.schema


context.configure(
    connection=connection,
    target_metadata=history.metadata,
    version_table=VERSION_TABLE,
    version_table_schema=history.schema,
    include_schemas=True,
    include_name=_is_ours,
    transaction_per_migration=True,
    compare_server_default=True,
    dont_mutate=not context.config.attributes["writes"],  # read-only commands must not create a version table
)
with context.begin_transaction():
    context.run_migrations()

"""The migration history of one package, and its Alembic configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self, TextIO

from alembic import op
from alembic.config import Config
from sqlalchemy import MetaData

VERSION_TABLE: Final = "alembic_version"
REVISION: Final = re.compile(r"\d{4}")
"""The form of our revisions; another product's history has other names."""


@dataclass(frozen=True, slots=True)
class History:
    """The schema of one package, its linear migration history, and the models that the history ends at.

    `location` is package, colon and folder (`tequipy_auth:migrations`); the revisions are in its folder `versions`.
    Revisions call `schema_name()` for the name of the schema, because an installation may rename it.
    """

    schema: str
    location: str
    metadata: MetaData

    def renamed(self, schemas: Mapping[str, str]) -> Self:
        """Return this history with the schema name that `schemas` (`DatabaseSettings.schemas`) gives it."""
        name = schemas.get(self.schema, self.schema)
        if name == self.schema:
            return self
        metadata = MetaData(schema=name, naming_convention=self.metadata.naming_convention)
        for table in self.metadata.sorted_tables:
            table.to_metadata(metadata, schema=name)
        return replace(self, schema=name, metadata=metadata)


def schema_name() -> str:
    """Return the name of the schema that the running migration changes; quote it in SQL: `"{schema_name()}".table`."""
    name: str | None = op.get_context().version_table_schema
    if name is None:
        raise RuntimeError("no migration is running")
    return name


def alembic_config(history: History, output: TextIO) -> Config:
    """Return the configuration of Alembic for a history; its commands print to `output`."""
    config = Config(stdout=output)
    config.set_main_option("script_location", "tequipy_platform.database:migrations")
    config.set_main_option("version_locations", f"{history.location}/versions")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config

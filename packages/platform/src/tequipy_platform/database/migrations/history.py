"""The migration history of one package. Imports no Alembic, so that processes that only check the schema do not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Final, Self

from sqlalchemy import MetaData

VERSION_TABLE: Final = "alembic_version"
REVISION: Final = re.compile(r"\d{4}")
"""The form of our revisions; another product's history has other names."""
_DOWN_REVISION: Final = re.compile(r"^down_revision\b[^=\n]*=\s*[\"'](\w+)[\"']", re.MULTILINE)


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

    def outdated_revisions(self) -> frozenset[str]:
        """Return all revisions but the last one, read from the text of the files.

        Alembic would import them all with itself, which takes 9 MiB and a tenth of a second of every process.
        """
        package, _, folder = self.location.partition(":")
        scripts = (file for file in files(package).joinpath(folder, "versions").iterdir() if file.name.endswith(".py"))
        return frozenset(found for file in scripts for found in _DOWN_REVISION.findall(file.read_text("utf-8")))


def schema_name() -> str:
    """Return the name of the schema that the running migration changes; quote it in SQL: `"{schema_name()}".table`."""
    from alembic import op  # noqa: PLC0415 -- a migration has loaded it

    name: str | None = op.get_context().version_table_schema
    if name is None:
        raise RuntimeError("no migration is running")
    return name

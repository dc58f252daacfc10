"""Conventions for the tables of all packages: names of constraints, and types of columns."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import DateTime, MetaData, Text, Uuid


def schema_metadata(schema: str) -> MetaData:
    """Return the metadata for a package's schema; every constraint gets a name by which a migration can drop it."""
    return MetaData(
        schema=schema,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        },
    )


COLUMN_TYPES: Final[dict[Any, Any]] = {datetime: DateTime(timezone=True), str: Text(), UUID: Uuid()}
"""The `type_annotation_map` of every declarative base: times have a time zone, strings have no length limit."""

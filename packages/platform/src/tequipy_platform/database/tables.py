"""Tables of all packages: names of constraints, types of columns, and deletion in batches."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, MetaData, Text, Uuid, delete, inspect, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase


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


async def delete_batch(
    session: AsyncSession, table: type[DeclarativeBase], condition: ColumnElement[bool], *, limit: int
) -> int:
    """Delete up to `limit` rows that fulfil the condition and that nobody has locked; return the number.

    The batch is selected once, by a materialised common table expression: PostgreSQL may run the subquery of an `IN`
    several times, and each time it skips the rows that it has locked before, so that more than `limit` are deleted.
    """
    keys = inspect(table).primary_key
    batch = select(*keys).where(condition).limit(limit).with_for_update(skip_locked=True, of=table)
    selected = select(batch.cte("batch").prefix_with("MATERIALIZED"))
    gone = await session.execute(
        delete(table).where(tuple_(*keys).in_(selected)).returning(literal(1)),
        execution_options={"synchronize_session": False},
    )
    return len(gone.all())

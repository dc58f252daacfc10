"""Deletion of rows in batches."""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def purge(rows: dict[K, V], condition: Callable[[V], bool], limit: int) -> int:
    """Delete up to `limit` rows that match the condition; return the number."""
    found = [key for key, row in rows.items() if condition(row)][:limit]
    for key in found:
        del rows[key]
    return len(found)

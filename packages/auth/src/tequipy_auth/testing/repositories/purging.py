"""Forgetting a few rows at a time."""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def purge(rows: dict[K, V], over: Callable[[V], bool], limit: int) -> int:
    """Forget up to so many rows that are over; tell how many."""
    found = [key for key, row in rows.items() if over(row)][:limit]
    for key in found:
        del rows[key]
    return len(found)

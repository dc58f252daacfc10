"""Keyset pages: requests for a page of rows, and the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

T = TypeVar("T")

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 200


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for the next page of rows, the newest first.

    Rows have UUIDv7 ids, which grow with time. `after` is the id of the last row of the previous page; None asks for
    the first page. A row that arrives meanwhile has a greater id, so no later page repeats or omits a row.
    """

    limit: int = DEFAULT_PAGE_SIZE
    after: UUID | None = None

    @property
    def rows(self) -> int:
        """How many rows to read: one more than the page has, because it tells whether there is a next page."""
        return self.limit + 1


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page, and the id after which the next one begins; None on the last page."""

    items: Sequence[T]
    next_after: UUID | None = None

    @classmethod
    def of(cls, rows: Sequence[T], request: PageRequest, id_of: Callable[[T], UUID]) -> "Page[T]":
        """Return the page of up to `request.rows` rows."""
        items = rows[: request.limit]
        return cls(items, id_of(items[-1]) if len(rows) > request.limit else None)

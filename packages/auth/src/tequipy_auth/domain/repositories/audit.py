"""Audit events: the trail that records them, and the log that reads them."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import date, datetime
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, AuditFilter, AuditRecord, Outcome
from tequipy_platform import Page, PageRequest


class AuditTrail(ABC):
    """Records audit events in the transaction of the unit of work."""

    @abstractmethod
    def record(self, event: AuditEvent) -> None:
        """Append an event with the current time, an id and the correlation id; events cannot be changed."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` events from before that time, oldest first; return the number of deleted rows.

        Events of the last 7 days cannot be deleted.
        """

    @abstractmethod
    async def erase(self, user_id: UUID, address_pseudonyms: Collection[str]) -> int:
        """Empty the personal data in the events of an account whose erasure is due; return the number of events.

        That is the metadata of the events about the account, or with the pseudonym of one of its addresses, and the
        client of those that the account or nobody known has caused. Ids, times, actions and outcomes stay.
        """


class AuditLog(ABC):
    """Read access to audit events."""

    @abstractmethod
    def stream(
        self, since: datetime, until: datetime, actions: Collection[AuditAction] | None = None
    ) -> AsyncIterator[AuditRecord]:
        """Iterate over the events from `since` (inclusive) to `until` (exclusive), oldest first.

        `actions` limits the result to these actions. Events are read in batches, so that memory use is bounded.
        """

    @abstractmethod
    async def counts(
        self,
        since: datetime,
        until: datetime,
        actions: Collection[AuditAction] | None = None,
        *,
        outcome: Outcome | None = None,
        accounts: bool = False,
    ) -> Mapping[date, int]:
        """Return the number of events from `since` (inclusive) to `until` (exclusive) for each UTC day that has any.

        `actions` and `outcome` restrict them; `accounts` counts the different subjects of the events instead, and so
        leaves out events without one. Times of events are those of the processes that recorded them, and are committed
        a little later: the number for a day that is over may still grow.
        """

    @abstractmethod
    async def page(self, request: PageRequest, wanted: AuditFilter) -> Page[AuditRecord]:
        """Return a page of the wanted events, the newest first."""

"""Audit events in memory."""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from operator import attrgetter
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, AuditFilter, AuditRecord, Outcome
from tequipy_auth.domain.policy import MIN_AUDIT_RETENTION
from tequipy_auth.domain.repositories import AuditLog, AuditTrail
from tequipy_auth.domain.value_objects import Client
from tequipy_observability import current_context
from tequipy_platform import Clock, IdSource, Page, PageRequest


class MemoryAuditTrail(AuditTrail):
    """Stores audit records in the order of their creation."""

    def __init__(self, clock: Clock, new_id: IdSource) -> None:
        self.rows: list[AuditRecord] = []
        self._clock = clock
        self._new_id = new_id

    @property
    def events(self) -> list[AuditEvent]:
        """The recorded events, without their times."""
        return [row.event for row in self.rows]

    def record(self, event: AuditEvent) -> None:
        """Append an event."""
        self.rows.append(AuditRecord(self._new_id(), self._clock.now(), current_context().correlation_id, event))

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete the oldest events; raises `ValueError` for recent ones, which the database refuses too."""
        if before > self._clock.now() - MIN_AUDIT_RETENTION:
            raise ValueError("audit events of the last 7 days cannot be purged")
        old = sorted((row for row in self.rows if row.at < before), key=lambda row: (row.at, row.id))[:limit]
        for row in old:
            self.rows.remove(row)
        return len(old)

    async def erase(self, user_id: UUID, address_pseudonyms: Collection[str]) -> int:
        """Empty the personal data in the events of an account."""
        erased = 0
        for index, row in enumerate(self.rows):
            event = row.event
            about = event.subject_id == user_id or event.metadata.get("address") in address_pseudonyms
            if not about and event.actor_id != user_id:
                continue
            erased += 1
            self.rows[index] = replace(
                row,
                event=replace(
                    event,
                    metadata={} if about else event.metadata,
                    client=Client() if event.actor_id in {None, user_id} else event.client,
                ),
            )
        return erased


class MemoryAuditLog(AuditLog):
    """Reads the events of a `MemoryAuditTrail`."""

    def __init__(self, trail: MemoryAuditTrail) -> None:
        self._trail = trail

    async def stream(
        self, since: datetime, until: datetime, actions: Collection[AuditAction] | None = None
    ) -> AsyncIterator[AuditRecord]:
        """Iterate over events, oldest first."""
        for row in sorted(self._trail.rows, key=lambda row: (row.at, row.id)):
            if since <= row.at < until and (actions is None or row.event.action in actions):
                yield row

    async def counts(
        self,
        since: datetime,
        until: datetime,
        actions: Collection[AuditAction] | None = None,
        *,
        outcome: Outcome | None = None,
        accounts: bool = False,
    ) -> Mapping[date, int]:
        """Count the events, or their subjects."""
        counted = [
            (row.at.astimezone(UTC).date(), row.event.subject_id)
            async for row in self.stream(since, until, actions)
            if outcome is None or row.event.outcome == outcome
        ]
        if accounts:
            counted = list({(day, subject) for day, subject in counted if subject is not None})
        return dict(Counter(day for day, _ in counted))

    async def page(self, request: PageRequest, wanted: AuditFilter) -> Page[AuditRecord]:
        """Return a page of events, the greatest ids first."""
        rows = [
            row
            for row in sorted(self._trail.rows, key=attrgetter("id"), reverse=True)
            if (request.after is None or row.id < request.after)
            and wanted.subject_id in {None, row.event.subject_id}
            and wanted.account_id in {None, row.event.subject_id, row.event.actor_id}
            and wanted.action in {None, row.event.action}
            and (wanted.since is None or wanted.since <= row.at)
            and (wanted.until is None or row.at < wanted.until)
        ]
        return Page.of(rows[: request.rows], request, attrgetter("id"))

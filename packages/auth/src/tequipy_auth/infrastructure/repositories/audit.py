"""The audit on PostgreSQL: rows are inserted, read and, when they are old, deleted."""

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import date, datetime
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Date, Row, Select, Text, cast, func, insert, or_, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_auth.domain.audit import AuditAction, AuditEvent, AuditFilter, AuditRecord, Outcome
from tequipy_auth.domain.repositories import AuditLog, AuditTrail
from tequipy_auth.domain.value_objects import Client
from tequipy_auth.infrastructure.models import AuditEventRow
from tequipy_auth.infrastructure.repositories.base import table_of
from tequipy_observability import current_context
from tequipy_platform import Clock, IdSource, Page, PageRequest
from tequipy_platform.database import Database

BATCH_SIZE: Final = 2000
"""The number of rows that one transaction reads."""

_INSERT: Final = insert(table_of(AuditEventRow))
_ACTIONS: Final = {action.value: action for action in AuditAction}
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}


class SqlAuditTrail(AuditTrail):
    """Collects events, and inserts all of them by one statement before the unit of work commits.

    The ORM's flush would take several times as long.

    `schema` is the name of auth's schema in this database.
    """

    def __init__(self, session: AsyncSession, clock: Clock, new_id: IdSource, *, schema: str) -> None:
        self._session = session
        self._schema = schema
        self._clock = clock
        self._new_id = new_id
        self._recorded: list[dict[str, Any]] = []

    def record(self, event: AuditEvent) -> None:
        """Collect an event."""
        self._recorded.append(
            {
                "id": self._new_id(),
                "at": self._clock.now(),
                "actor_id": event.actor_id,
                "subject_id": event.subject_id,
                "session_id": event.session_id,
                "action": str(event.action),
                "outcome": str(event.outcome),
                "reason": event.reason,
                "ip": event.client.ip,
                "user_agent": event.client.user_agent,
                "correlation_id": current_context().correlation_id,
                "metadata": dict(event.metadata),
            }
        )

    async def write(self) -> None:
        """Insert the collected events."""
        if self._recorded:
            recorded, self._recorded = self._recorded, []
            connection = await self._session.connection()
            await connection.execute(_INSERT, recorded)

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Call the only database function that may delete events."""
        purge = getattr(func, self._schema).purge_audit_events(before, limit)
        purged: int = (await self._session.execute(select(purge))).scalar_one()
        return purged

    async def erase(self, user_id: UUID, address_pseudonyms: Collection[str]) -> int:
        """Call the only database function that may change events."""
        addresses = cast(list(address_pseudonyms), ARRAY(Text))
        erase = getattr(func, self._schema).erase_audit_events(user_id, addresses)
        await self.write()  # because the function empties those events too
        erased: int = (await self._session.execute(select(erase))).scalar_one()
        return erased


class SqlAuditLog(AuditLog):
    """Reads events in batches, each in a short transaction, so that a slow reader keeps no transaction open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stream(
        self, since: datetime, until: datetime, actions: Collection[AuditAction] | None = None
    ) -> AsyncIterator[AuditRecord]:
        """Select events, oldest first; each batch starts after the position of the last row (keyset pagination)."""
        position = tuple_(AuditEventRow.at, AuditEventRow.id)
        query = _events().where(AuditEventRow.at >= since, AuditEventRow.at < until)
        query = query.order_by(AuditEventRow.at, AuditEventRow.id).limit(BATCH_SIZE)
        if actions is not None:
            query = query.where(AuditEventRow.action.in_([action.value for action in actions]))
        page = query
        while True:
            async with self._database.sessions() as session:
                rows = (await session.execute(page)).all()
            for row in rows:
                yield _record_of(row)
            if len(rows) < BATCH_SIZE:
                return
            page = query.where(position > (rows[-1].at, rows[-1].id))

    async def counts(
        self,
        since: datetime,
        until: datetime,
        actions: Collection[AuditAction] | None = None,
        *,
        outcome: Outcome | None = None,
        accounts: bool = False,
    ) -> Mapping[date, int]:
        """Count in one statement; without restrictions it reads nothing but the index of the times."""
        day = func.timezone("UTC", AuditEventRow.at).cast(Date)
        number = func.count(AuditEventRow.subject_id.distinct()) if accounts else func.count()
        query = select(day, number).where(AuditEventRow.at >= since, AuditEventRow.at < until).group_by(day)
        if actions is not None:
            query = query.where(AuditEventRow.action.in_([action.value for action in actions]))
        if outcome is not None:
            query = query.where(AuditEventRow.outcome == outcome.value)
        if accounts:
            query = query.where(AuditEventRow.subject_id.is_not(None))
        async with self._database.sessions() as session:
            counted = await session.execute(query)
        return dict(iter(counted))  # of the rows: `dict` would take the result, which has `keys`, for a mapping

    async def page(self, request: PageRequest, wanted: AuditFilter) -> Page[AuditRecord]:
        """Select events in the order of their ids, which grow with time."""
        query = _events().order_by(AuditEventRow.id.desc()).limit(request.rows)
        if request.after is not None:
            query = query.where(AuditEventRow.id < request.after)
        if wanted.subject_id is not None:
            query = query.where(AuditEventRow.subject_id == wanted.subject_id)
        if wanted.account_id is not None:
            of_account = AuditEventRow.subject_id == wanted.account_id, AuditEventRow.actor_id == wanted.account_id
            query = query.where(or_(*of_account))
        if wanted.action is not None:
            query = query.where(AuditEventRow.action == wanted.action)
        if wanted.since is not None:
            query = query.where(AuditEventRow.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(AuditEventRow.at < wanted.until)
        async with self._database.sessions() as session:
            rows = (await session.execute(query)).all()
        return Page.of([_record_of(row) for row in rows], request, attrgetter("id"))


def _events() -> Select[*tuple[Any, ...]]:
    """Select columns in the order of `_record_of`: an object of the ORM for each row would double the time."""
    return select(
        AuditEventRow.id,
        AuditEventRow.at,
        AuditEventRow.correlation_id,
        AuditEventRow.action,
        AuditEventRow.outcome,
        AuditEventRow.reason,
        AuditEventRow.actor_id,
        AuditEventRow.subject_id,
        AuditEventRow.session_id,
        AuditEventRow.ip,
        AuditEventRow.user_agent,
        AuditEventRow.details,
    )


def _record_of(row: Row[*tuple[Any, ...]]) -> AuditRecord:
    """Return the record of a row; an action or outcome that a newer release wrote stays a text."""
    identifier, at, correlation_id, action, outcome, reason, actor_id, subject_id, session_id, *client, details = row
    event = AuditEvent(
        _ACTIONS.get(action, action),
        _OUTCOMES.get(outcome, outcome),
        reason,
        actor_id=actor_id,
        subject_id=subject_id,
        session_id=session_id,
        client=Client(*client),
        metadata=details,
    )
    return AuditRecord(identifier, at, correlation_id, event)

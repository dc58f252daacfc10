"""How the audit is read from PostgreSQL."""

from datetime import timedelta

from sqlalchemy import event

from tequipy_auth import AuditAction, AuditEvent, AuditFilter
from tequipy_auth.infrastructure.models import AuditEventRow
from tequipy_auth.infrastructure.repositories import SqlAuditLog, SqlAuthUnitOfWork
from tequipy_platform import PageRequest
from tequipy_platform.database import Database
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock


async def test_reading_builds_no_objects_of_the_orm(database: Database, clock: FrozenClock) -> None:
    """Stream and page select columns: an object for each row would double the time of a report."""
    async with SqlAuthUnitOfWork(database, clock, CountingIds()) as unit:
        for _ in range(3):
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
    loaded: list[AuditEventRow] = []

    def count(row: AuditEventRow, _context: object) -> None:
        loaded.append(row)

    event.listen(AuditEventRow, "load", count)
    try:
        log = SqlAuditLog(database)
        streamed = [record async for record in log.stream(EPOCH, EPOCH + timedelta(days=1))]
        assert len(streamed) == len((await log.page(PageRequest(), AuditFilter())).items) == 3
    finally:
        event.remove(AuditEventRow, "load", count)
    assert loaded == []

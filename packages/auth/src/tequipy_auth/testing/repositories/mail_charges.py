"""Charges of mail budgets in memory."""

from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.repositories import MailCharges
from tequipy_auth.testing.repositories.purging import purge


class MemoryMailCharges(MailCharges):
    """Stores key and time by message id."""

    def __init__(self) -> None:
        self.rows: dict[UUID, tuple[str, datetime]] = {}

    async def charge(self, message_id: UUID, key: str, *, at: datetime, since: datetime, limit: int) -> bool:
        """Count other messages of the key, and store this one."""
        others = [other for other, (its_key, its_time) in self.rows.items() if its_key == key and its_time > since]
        if len(set(others) - {message_id}) >= limit:
            return False
        self.rows[message_id] = key, at
        return True

    async def release(self, message_id: UUID) -> None:
        """Delete a charge."""
        self.rows.pop(message_id, None)

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete old charges."""
        return purge(self.rows, lambda row: row[1] <= before, limit)

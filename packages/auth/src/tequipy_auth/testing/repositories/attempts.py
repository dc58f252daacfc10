"""Counters of failed attempts in memory."""

from collections.abc import Collection, Mapping
from datetime import datetime

from tequipy_auth.domain.lockout import Counter, Key, LoginAttempts
from tequipy_auth.testing.repositories.purging import purge


class MemoryLoginAttempts(LoginAttempts):
    """Stores counters by key."""

    def __init__(self) -> None:
        self.rows: dict[Key, Counter] = {}

    async def lock(self, keys: Collection[Key]) -> Mapping[Key, Counter]:
        """Return the counters; no lock is needed, because units of work in memory run one after the other."""
        return {key: self.rows.get(key, Counter()) for key in keys}

    async def save(self, counters: Mapping[Key, Counter]) -> None:
        """Store counters."""
        self.rows.update(counters)

    async def release(self, keys: Collection[Key], at: datetime, *, delete: Collection[Key] = ()) -> None:
        """Remove a reservation, and delete counters."""
        for key in keys:
            if key in self.rows:
                self.rows[key] = self.rows[key].without_reservation(at)
        for key in delete:
            self.rows.pop(key, None)

    async def delete_for_account(self, account: str, *, keep: Key | None = None) -> None:
        """Delete every counter of an account but one."""
        for key in [key for key in self.rows if key.account == account and key != keep]:
            del self.rows[key]

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired and empty counters."""
        return purge(self.rows, lambda row: row.expires_at is None or row.expires_at <= before, limit)

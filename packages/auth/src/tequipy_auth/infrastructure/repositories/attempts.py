"""Counters of failed attempts on PostgreSQL, so that a loss of Redis data ends no lock."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.lockout import Counter, Key, LoginAttempts, Scope
from tequipy_auth.infrastructure.models import LoginAttemptRow as Row
from tequipy_auth.infrastructure.repositories.base import Repository
from tequipy_platform.database import delete_batch


class SqlLoginAttempts(Repository, LoginAttempts):
    """Stores counters in `auth.login_attempts`; rows are locked in the order of their keys, to avoid deadlocks."""

    async def lock(self, keys: Collection[Key]) -> Mapping[Key, Counter]:
        """Insert new rows and lock existing ones in one statement; waits for other holders of these rows."""
        by_name = {key.name: key for key in sorted(keys, key=lambda key: key.name)}
        if not by_name:
            return {}
        new = insert(Row).values(
            [
                {"key": name, "account": key.account, "failed_at": (), "reserved_at": (), "locks": 0}
                for name, key in by_name.items()
            ]
        )
        # The update changes nothing: unlike `on conflict do nothing`, it locks and returns rows that exist already.
        rows = await self._session.execute(
            new.on_conflict_do_update(index_elements=[Row.key], set_={"key": new.excluded.key}).returning(
                Row.key,
                Row.failed_at,
                Row.reserved_at,
                Row.locks,
                Row.locked_until,
                Row.first_locked_at,
                Row.trusted_until,
            )
        )
        return {
            by_name[row.key]: Counter(
                failed_at=row.failed_at,
                reserved_at=row.reserved_at,
                locks=row.locks,
                locked_until=row.locked_until,
                first_locked_at=row.first_locked_at,
                trusted_until=row.trusted_until,
            )
            for row in rows
        }

    async def save(self, counters: Mapping[Key, Counter]) -> None:
        """Update rows by their keys."""
        changed = [
            {
                "key": key.name,
                "failed_at": counter.failed_at,
                "reserved_at": counter.reserved_at,
                "locks": counter.locks,
                "locked_until": counter.locked_until,
                "first_locked_at": counter.first_locked_at,
                "trusted_until": counter.trusted_until,
                "expires_at": counter.expires_at,
            }
            for key, counter in counters.items()
        ]
        if changed:
            await self._session.execute(update(Row), changed)

    async def delete(self, keys: Collection[Key]) -> None:
        """Lock the rows in the order of their keys, then delete them."""
        in_order = select(Row.key).where(Row.key.in_([key.name for key in keys])).order_by(Row.key).with_for_update()
        await self._session.execute(delete(Row).where(Row.key.in_(in_order)))

    async def delete_for_account(self, account: str, *, keep: Key | None = None) -> None:
        """Lock the account's rows and that of `keep` in the order of their keys, then delete all but this one."""
        stored = await self._session.scalars(select(Row.key).where(Row.account == account))
        kept = [keep] if keep is not None else []
        others = set(stored) - {key.name for key in kept}
        # `lock` uses only the names of the keys, and the table does not contain their scopes.
        await self.lock([*kept, *(Key(Scope.ACCOUNT, name, account) for name in others)])
        await self._session.execute(delete(Row).where(Row.key.in_(others)))

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired and empty rows that nobody has locked."""
        expired = (Row.expires_at <= before) | Row.expires_at.is_(None)
        return await delete_batch(self._session, Row, expired, limit=limit)

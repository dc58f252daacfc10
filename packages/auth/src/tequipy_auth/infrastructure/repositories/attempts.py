"""The counters of failed attempts on PostgreSQL: there, so that an emptied Redis forgets no lock."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_auth.domain.lockout import Counter, Key, Scope
from tequipy_auth.domain.repositories import LoginAttempts
from tequipy_auth.infrastructure.models import LoginAttemptRow as Row


class SqlLoginAttempts(LoginAttempts):
    """Rows of `auth.login_attempts`; whoever needs several takes them in the order of their keys: no deadlock."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def hold(self, keys: Collection[Key]) -> Mapping[Key, Counter]:
        """Insert what is new and lock what is there, in one statement; waits for those who hold a row."""
        by_name = {key.name: key for key in sorted(keys, key=lambda key: key.name)}
        if not by_name:
            return {}
        new = insert(Row).values(
            [
                {"key": name, "account": key.account, "failed_at": (), "reserved_at": (), "locks": 0}
                for name, key in by_name.items()
            ]
        )
        rows = await self._session.execute(
            new.on_conflict_do_update(index_elements=[Row.key], set_={"key": new.excluded.key}).returning(
                Row.key,
                Row.failed_at,
                Row.reserved_at,
                Row.locks,
                Row.locked_until,
                Row.climbing_since,
                Row.trusted_until,
            )
        )
        return {
            by_name[row.key]: Counter(
                failed_at=row.failed_at,
                reserved_at=row.reserved_at,
                locks=row.locks,
                locked_until=row.locked_until,
                climbing_since=row.climbing_since,
                trusted_until=row.trusted_until,
            )
            for row in rows
        }

    async def keep(self, counters: Mapping[Key, Counter]) -> None:
        """Update rows by their keys."""
        changed = [
            {
                "key": key.name,
                "failed_at": counter.failed_at,
                "reserved_at": counter.reserved_at,
                "locks": counter.locks,
                "locked_until": counter.locked_until,
                "climbing_since": counter.climbing_since,
                "trusted_until": counter.trusted_until,
                "dies_at": counter.dies_at,
            }
            for key, counter in counters.items()
        ]
        if changed:
            await self._session.execute(update(Row), changed)

    async def forget(self, keys: Collection[Key]) -> None:
        """Lock rows in the order of their keys, then delete them."""
        in_order = select(Row.key).where(Row.key.in_([key.name for key in keys])).order_by(Row.key).with_for_update()
        await self._session.execute(delete(Row).where(Row.key.in_(in_order)))

    async def forget_account(self, account: str, *, hold: Collection[Key] = ()) -> None:
        """Lock the account's rows and those of `hold` in the order of their keys, then delete them."""
        stored = await self._session.scalars(select(Row.key).where(Row.account == account))
        names = {*stored, *(key.name for key in hold)}
        await self.hold([Key(Scope.ACCOUNT, name, account) for name in names])
        await self._session.execute(delete(Row).where(Row.key.in_(names)))

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete dead rows that nobody holds, and those that hold nothing."""
        dead = select(Row.key).where((Row.dies_at <= before) | Row.dies_at.is_(None)).limit(limit)
        deleted = await self._session.execute(
            delete(Row).where(Row.key.in_(dead.with_for_update(skip_locked=True))).returning(Row.key)
        )
        return len(deleted.all())

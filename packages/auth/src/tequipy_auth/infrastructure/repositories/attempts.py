"""Counters of failed attempts on PostgreSQL, so that a loss of Redis data ends no lock."""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    DateTime,
    Text,
    Update,
    any_,
    bindparam,
    collate,
    delete,
    func,
    not_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert

from tequipy_auth.domain.lockout import Counter, Key, LoginAttempts, Scope
from tequipy_auth.infrastructure.models import LoginAttemptRow as Row
from tequipy_auth.infrastructure.repositories.base import Repository, table_of
from tequipy_platform.database import delete_batch

_TABLE: Final = table_of(Row)
_FIRST_LOCKED_AT: Final = Row.first_locked_at.name


# Statements are built once, because that takes longer than running them.
@cache
def _lock(number: int) -> ReturningInsert[*tuple[Any, ...]]:
    """Return the statement of `SqlLoginAttempts.lock` for this number of keys."""
    new = insert(_TABLE).values(
        [
            {
                "key": bindparam(f"key_{each}"),
                "account": bindparam(f"account_{each}"),
                "failed_at": (),
                "reserved_at": (),
                "locks": 0,
            }
            for each in range(number)
        ]
    )
    names = ("key", "failed_at", "reserved_at", "locks", "locked_until", _FIRST_LOCKED_AT, "trusted_until")
    # The update changes nothing: unlike `on conflict do nothing`, it locks and returns rows that exist already.
    return new.on_conflict_do_update(index_elements=["key"], set_={"key": new.excluded.key}).returning(
        *(_TABLE.c[name] for name in names)
    )


def _release() -> Update:
    """Return the statement of `SqlLoginAttempts.release`."""
    key, reserved_at = _TABLE.c.key, _TABLE.c.reserved_at
    # In the order of Python's strings, as those of `lock`.
    in_order = select(key).where(key == any_(bindparam("names", type_=ARRAY(Text)))).order_by(collate(key, "C"))
    locked = in_order.with_for_update().cte("locked")
    is_deleted = key == any_(bindparam("deleted", type_=ARRAY(Text)))
    is_locked = key.in_(select(locked.c.key))
    deleted = delete(_TABLE).where(is_locked, is_deleted).cte("deleted")
    # The first of several reservations of the same time.
    place = func.array_position(reserved_at, bindparam("moment", type_=DateTime(timezone=True)))
    rest = func.array_cat(reserved_at[1 : place - 1], reserved_at[place + 1 : func.cardinality(reserved_at)])
    return (
        update(_TABLE).where(is_locked, not_(is_deleted), place.is_not(None)).values(reserved_at=rest).add_cte(deleted)
    )


_RELEASE: Final = _release()
_SAVE: Final = (
    update(_TABLE)
    .where(_TABLE.c.key == bindparam("name"))
    .values(
        {
            "failed_at": bindparam("new_failed_at"),
            "reserved_at": bindparam("new_reserved_at"),
            "locks": bindparam("new_locks"),
            "locked_until": bindparam("new_locked_until"),
            _FIRST_LOCKED_AT: bindparam("new_first_locked_at"),
            "trusted_until": bindparam("new_trusted_until"),
            Row.expires_at.name: bindparam("new_expires_at"),
        }
    )
)


class SqlLoginAttempts(Repository, LoginAttempts):
    """Stores counters in `auth.login_attempts`; rows are locked in the order of their keys, to avoid deadlocks."""

    async def lock(self, keys: Collection[Key]) -> Mapping[Key, Counter]:
        """Insert new rows and lock existing ones in one statement; waits for other holders of these rows."""
        by_name = {key.name: key for key in sorted(keys, key=lambda key: key.name)}
        if not by_name:
            return {}
        parameters: dict[str, str | None] = {}
        for number, (name, key) in enumerate(by_name.items()):
            parameters |= {f"key_{number}": name, f"account_{number}": key.account}
        rows = await self._session.execute(_lock(len(by_name)), parameters)
        return {
            by_name[name]: Counter(failed_at, reserved_at, locks, locked_until, first_locked_at, trusted_until)
            for name, failed_at, reserved_at, locks, locked_until, first_locked_at, trusted_until in rows
        }

    async def save(self, counters: Mapping[Key, Counter]) -> None:
        """Update rows by their keys."""
        changed = [
            {
                "name": key.name,
                "new_failed_at": counter.failed_at,
                "new_reserved_at": counter.reserved_at,
                "new_locks": counter.locks,
                "new_locked_until": counter.locked_until,
                "new_first_locked_at": counter.first_locked_at,
                "new_trusted_until": counter.trusted_until,
                "new_expires_at": counter.expires_at,
            }
            for key, counter in counters.items()
        ]
        if changed:
            await self._session.execute(_SAVE, changed)

    async def release(self, keys: Collection[Key], at: datetime, *, delete: Collection[Key] = ()) -> None:
        """Lock the rows in the order of their keys, change and delete them, all in one statement.

        The time at which a row expires stays; it is at most `RESERVATION_TTL` later than without the reservation.
        """
        names = {key.name for key in keys}
        deleted = {key.name for key in delete}
        parameters = {"names": sorted(names), "deleted": sorted(deleted), "moment": at}
        await self._session.execute(_RELEASE, parameters)

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

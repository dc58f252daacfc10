"""Devices on PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Delete, Integer, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.entities import Device
from tequipy_auth.domain.repositories import Devices
from tequipy_auth.infrastructure.models import DeviceRow
from tequipy_auth.infrastructure.repositories.base import Repository, table_of

_TABLE: Final = table_of(DeviceRow)


def _put() -> Delete:
    """Return the statement of `SqlDevices.put`, built once, because that takes longer than running it."""
    columns = _TABLE.c
    new = insert(_TABLE).values(
        id=bindparam("device"),
        user_id=bindparam("owner"),
        last_used_at=bindparam("moment"),
        expires_at=bindparam("until"),
    )
    put = new.on_conflict_do_update(
        index_elements=["id"],
        set_={"last_used_at": new.excluded.last_used_at, "expires_at": new.excluded.expires_at},
        where=columns.user_id == new.excluded.user_id,
    )
    others = (
        select(columns.id)
        .where(columns.user_id == bindparam("owner"), columns.id != bindparam("device"))
        .order_by(columns.last_used_at.desc(), columns.id.desc())
        .offset(bindparam("others", type_=Integer))
    )
    return delete(_TABLE).where(columns.id.in_(others)).add_cte(put.cte("put"))


_PUT: Final = _put()


class SqlDevices(Repository, Devices):
    """Rows of `auth.devices`."""

    async def is_live(self, device_id: str, user_id: UUID, *, at: datetime) -> bool:
        """Select a device by its primary key."""
        found = await self._session.scalar(
            select(DeviceRow.id).where(
                DeviceRow.id == device_id, DeviceRow.user_id == user_id, DeviceRow.expires_at > at
            )
        )
        return found is not None

    async def all_of(self, user_id: UUID) -> Sequence[Device]:
        """Select the devices of an account."""
        rows = await self._session.scalars(
            select(DeviceRow).where(DeviceRow.user_id == user_id).order_by(DeviceRow.last_used_at.desc(), DeviceRow.id)
        )
        return [Device(row.id, row.user_id, row.last_used_at, row.expires_at) for row in rows]

    async def put(self, device: Device, *, keep: int) -> None:
        """Insert or update a device and delete the devices above the limit, in one statement."""
        await self._session.execute(
            _PUT,
            {
                "device": device.id,
                "owner": device.user_id,
                "moment": device.last_used_at,
                "until": device.expires_at,
                "others": keep - 1,
            },
        )

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired devices."""
        return await self._purge(DeviceRow, DeviceRow.expires_at <= before, limit)

"""Devices on PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.entities import Device
from tequipy_auth.domain.repositories import Devices
from tequipy_auth.infrastructure.models import DeviceRow
from tequipy_auth.infrastructure.repositories.base import Repository


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
        """Insert or update a device, then delete the devices above the limit."""
        new = insert(DeviceRow).values(
            id=device.id, user_id=device.user_id, last_used_at=device.last_used_at, expires_at=device.expires_at
        )
        await self._session.execute(
            new.on_conflict_do_update(
                index_elements=[DeviceRow.id],
                set_={"last_used_at": new.excluded.last_used_at, "expires_at": new.excluded.expires_at},
                where=DeviceRow.user_id == new.excluded.user_id,
            )
        )
        others = (
            select(DeviceRow.id)
            .where(DeviceRow.user_id == device.user_id, DeviceRow.id != device.id)
            .order_by(DeviceRow.last_used_at.desc(), DeviceRow.id.desc())
            .offset(keep - 1)
        )
        await self._session.execute(
            delete(DeviceRow).where(DeviceRow.id.in_(others)).execution_options(synchronize_session=False)
        )

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired devices."""
        return await self._purge(DeviceRow, DeviceRow.expires_at <= before, limit)

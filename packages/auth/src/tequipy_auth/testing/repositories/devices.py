"""Devices in memory."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.entities import Device
from tequipy_auth.domain.repositories import Devices
from tequipy_auth.testing.repositories.purging import purge


class MemoryDevices(Devices):
    """Stores devices by id."""

    def __init__(self) -> None:
        self.rows: dict[str, Device] = {}

    async def is_live(self, device_id: str, user_id: UUID, *, at: datetime) -> bool:
        """Return whether the account has this device."""
        row = self.rows.get(device_id)
        return row is not None and row.user_id == user_id and row.expires_at > at

    async def all_of(self, user_id: UUID) -> Sequence[Device]:
        """Return the devices of an account."""
        theirs = sorted((row for row in self.rows.values() if row.user_id == user_id), key=lambda row: row.id)
        return sorted(theirs, key=lambda row: row.last_used_at, reverse=True)

    async def put(self, device: Device, *, keep: int) -> None:
        """Store or update a device, then delete the devices above the limit."""
        if device.id in self.rows and self.rows[device.id].user_id != device.user_id:
            return
        self.rows[device.id] = device
        others = [row for row in self.rows.values() if row.user_id == device.user_id and row.id != device.id]
        for row in sorted(others, key=lambda row: (row.last_used_at, row.id), reverse=True)[keep - 1 :]:
            del self.rows[row.id]

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete expired devices."""
        return purge(self.rows, lambda row: row.expires_at <= before, limit)

"""Device marks, which keep an attacker's failed attempts from locking out the owner of an account."""

import hmac
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Final
from uuid import UUID

from tequipy_auth.domain.entities import Device, User
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_platform import Clock, RandomSource

MARK_TTL: Final = timedelta(days=365)
"""How long a device mark is valid after the login that issued it."""

DEVICES_PER_ACCOUNT: Final = 10
"""How many devices an account has; a login on a further device invalidates the mark of the least recently used one."""

_PREFIX: Final = "dv2"
_PARTS: Final = 6
_ID_BYTES: Final = 16


class DeviceMarks:
    """Issues and verifies device marks: `dv2.<account digest>.<password epoch>.<expiry>.<device id>.<signature>`.

    A mark proves that its client has logged in to the account since the password was last set. It does not authenticate
    anybody: its only effect is that failed attempts of the client are counted separately. `expiry` is in seconds since
    1970.
    """

    def __init__(self, pseudonyms: Pseudonyms, clock: Clock, random: RandomSource) -> None:
        self._pseudonyms = pseudonyms
        self._clock = clock
        self._random = random

    async def issue(self, work: AuthUnitOfWork, user: User, *, known: str | None = None) -> str:
        """Return a mark for a login to this account; a client whose `known` mark is valid keeps its device id.

        The unit of work must hold the lock of the user's row. Otherwise a mark could be issued for a password that is
        being replaced.
        """
        device_id = await self.recognise(work, user, known)
        if device_id is None:
            device_id = urlsafe_b64encode(self._random(_ID_BYTES)).rstrip(b"=").decode("ascii")
        now = self._clock.now()
        device = Device(device_id, user.id, last_used_at=now, expires_at=now + MARK_TTL)
        await work.devices.put(device, keep=DEVICES_PER_ACCOUNT)
        signed = (
            self._account_digest(user.id),
            str(user.password_epoch),
            str(int(device.expires_at.timestamp())),
            device_id,
        )
        return ".".join((_PREFIX, *signed, self._signature(*signed)))

    async def recognise(self, work: AuthUnitOfWork, user: User, mark: str | None) -> str | None:
        """Return the device id of a valid mark of this account, or None if the mark is invalid or missing."""
        parts = (mark or "").split(".")
        if len(parts) != _PARTS or parts[0] != _PREFIX or not all(part.isascii() for part in parts):
            return None
        account, epoch, expiry, device_id, signature = parts[1:]
        if not hmac.compare_digest(signature, self._signature(account, epoch, expiry, device_id)):
            return None
        if account != self._account_digest(user.id) or epoch != str(user.password_epoch):
            return None
        now = self._clock.now()
        if int(expiry) <= now.timestamp() or not await work.devices.is_live(device_id, user.id, at=now):
            return None
        return device_id

    def _account_digest(self, user_id: UUID) -> str:
        return self._pseudonyms.of("device account", str(user_id))

    def _signature(self, *signed: str) -> str:
        return self._pseudonyms.of("device signature", *signed)

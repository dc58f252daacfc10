"""Counting attempts at passwords, and locking what is tried too often."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from tequipy_auth.domain.devices import Devices
from tequipy_auth.domain.entities import User
from tequipy_auth.domain.lockout import Key, Scope, client_network
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import Client, EmailAddress
from tequipy_platform import Clock


@dataclass(frozen=True, slots=True)
class Reservation:
    """An attempt that was counted as failed before anybody looked at the password."""

    at: datetime
    locks: Mapping[Key, datetime | None]
    """The lock that it caused under each key, None where it caused none."""


@dataclass(frozen=True, slots=True)
class Locked:
    """An attempt that nobody will look at: it was not counted."""

    scope: Scope
    retry_after: float
    """Seconds."""


class Lockout:
    """The ladder of `tequipy_auth.domain.lockout` over what the unit of work keeps.

    An attempt is reserved before the password is hashed, so that of many at once no more are looked at than one after
    the other would be. Reserve, then do one of: nothing (it failed), `succeed` or `take_back`.
    """

    def __init__(self, pseudonyms: Pseudonyms, devices: Devices, clock: Clock) -> None:
        self._pseudonyms = pseudonyms
        self._devices = devices
        self._clock = clock

    async def reserve(
        self, work: AuthUnitOfWork, address: EmailAddress, user: User | None, client: Client
    ) -> Reservation | Locked:
        """Count an attempt in advance, unless one of its keys is locked: then nothing is counted or extended."""
        now = self._clock.now()
        counters = await work.attempts.hold(list(self._keys(address, user, client)))
        locks = {key: counter.locked_until for key, counter in counters.items() if counter.is_locked(now)}
        if locks:
            key, until = max(locks.items(), key=lambda item: item[1] or now)
            return Locked(key.scope, ((until or now) - now).total_seconds())
        failed = {key: counter.with_failure(key.scope, now) for key, counter in counters.items()}
        await work.attempts.keep(failed)
        caused = {
            key: counter.locked_until if counter.locks > counters[key].locks else None
            for key, counter in failed.items()
        }
        return Reservation(now, caused)

    async def succeed(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Drop the account's counters for this client address or device; elsewhere the attempt was no failure."""
        own = [key for key in reservation.locks if key.scope in {Scope.PAIR, Scope.DEVICE}]
        await self.take_back(work, reservation)
        await work.attempts.forget(own)

    async def take_back(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Undo the reservation of an attempt that was no failure."""
        counters = await work.attempts.hold(list(reservation.locks))
        await work.attempts.keep(
            {key: counter.without_failure(reservation.at, reservation.locks[key]) for key, counter in counters.items()}
        )

    async def unlock(self, work: AuthUnitOfWork, address: EmailAddress) -> None:
        """Forget every failure at an account; those of client addresses at many accounts stay."""
        await work.attempts.forget_account(self._pseudonyms.of_address(address))

    def _keys(self, address: EmailAddress, user: User | None, client: Client) -> Iterator[Key]:
        account = self._pseudonyms.of_address(address)
        device = self._devices.recognise(client.device, user.id) if user else None
        if device is not None:  # a budget of its own, so that a stranger cannot lock the owner out
            yield self._key(Scope.DEVICE, account, device)
            return
        network = client_network(client.ip)
        yield self._key(Scope.PAIR, account, network)
        yield self._key(Scope.ACCOUNT, account)
        yield Key(Scope.CLIENT, self._pseudonyms.of(Scope.CLIENT.label, network))

    def _key(self, scope: Scope, account: str, *more: str) -> Key:
        return Key(scope, self._pseudonyms.of(scope.label, account, *more), account)

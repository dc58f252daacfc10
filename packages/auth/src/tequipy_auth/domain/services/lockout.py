"""Counting attempts at passwords, and locking what is tried too often."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from tequipy_auth.domain.devices import Devices
from tequipy_auth.domain.entities import User
from tequipy_auth.domain.lockout import Counter, Key, Scope, client_network
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import Client, EmailAddress
from tequipy_platform import Clock


@dataclass(frozen=True, slots=True)
class Reservation:
    """An attempt that is being looked at, and the keys that it has taken a place under."""

    at: datetime
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Locked:
    """An attempt that nobody will look at: it was not counted."""

    scope: Scope
    retry_after: float
    """Seconds."""


class Lockout:
    """The ladder of `tequipy_auth.domain.lockout` over what the unit of work keeps.

    An attempt takes its place before the password is hashed, so that of many at once no more are looked at than could
    fail before the next lock. Then it is one of: `fail`, `succeed`, `take_back`. One that nobody finishes gives its
    place back by itself: a process that dies locks nobody out.
    """

    def __init__(self, pseudonyms: Pseudonyms, devices: Devices, clock: Clock) -> None:
        self._pseudonyms = pseudonyms
        self._devices = devices
        self._clock = clock

    async def reserve(
        self, work: AuthUnitOfWork, address: EmailAddress, user: User | None, client: Client
    ) -> Reservation | Locked:
        """Take a place for an attempt, unless one of its keys refuses: then nothing is counted or extended."""
        now = self._clock.now()
        keys = tuple(self._keys(address, user, client))
        counters = await work.attempts.hold(keys)
        refusals = [(wait, key.scope) for key in keys if (wait := counters[key].refuses(key.scope, now)) is not None]
        if refusals:
            wait, scope = max(refusals, key=lambda refusal: refusal[0])
            return Locked(scope, wait.total_seconds())
        await work.attempts.keep({key: counters[key].with_reservation(key.scope, now) for key in keys})
        return Reservation(now, keys)

    async def fail(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Count a failure under every key; the one too many locks."""
        now = self._clock.now()
        counters = await self._given_back(work, reservation)
        await work.attempts.keep({key: each.with_failure(key.scope, now) for key, each in counters.items()})

    async def succeed(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Drop the account's counter for this client address or device; the other counters stay as they were."""
        await self.take_back(work, reservation)
        await work.attempts.forget([key for key in reservation.keys if key.scope in {Scope.PAIR, Scope.DEVICE}])

    async def take_back(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Give the place of an attempt back that was no failure."""
        await work.attempts.keep(await self._given_back(work, reservation))

    async def unlock(self, work: AuthUnitOfWork, address: EmailAddress) -> None:
        """Forget every failure at an account; those of client addresses at many accounts stay."""
        await work.attempts.forget_account(self._pseudonyms.of_address(address))

    async def _given_back(self, work: AuthUnitOfWork, reservation: Reservation) -> Mapping[Key, Counter]:
        counters = await work.attempts.hold(reservation.keys)
        return {key: counter.without_reservation(reservation.at) for key, counter in counters.items()}

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

"""Counting attempts at passwords, and locking what is tried too often."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from tequipy_auth.domain.lockout import RESET_TRUST, Counter, Key, Scope, client_network
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import Client, EmailAddress
from tequipy_platform import Clock

_CLEARED_BY_SUCCESS: Final = frozenset({Scope.PAIR, Scope.DEVICE, Scope.SESSION})
"""What a success proves to be the owner's."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an attempt comes from: its client, and what gives it a budget of its own."""

    client: Client
    device: str | None = None
    """The id of its device, whose mark is valid."""
    session_id: UUID | None = None
    """The live session that it is made in; it comes before the device."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """An attempt that is being looked at.

    Attributes:
        at: When it was reserved.
        keys: The keys that it has taken a place under.
        counted: Further keys whose locks do not refuse it, but under which a failure counts.
    """

    at: datetime
    keys: tuple[Key, ...]
    counted: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Locked:
    """An attempt that nobody will look at: it was not counted."""

    scope: Scope
    retry_after: float
    """Seconds."""


class Lockout:
    """The ladder of `tequipy_auth.domain.lockout` over what the unit of work keeps.

    An attempt takes its place before the password is hashed, so that of many at once no more are looked at than could
    fail before the next lock. Then it is one of: `fail`, `succeed`, `release`. One that nobody finishes gives its
    place back by itself: a process that dies locks nobody out.
    """

    def __init__(self, pseudonyms: Pseudonyms, clock: Clock) -> None:
        self._pseudonyms = pseudonyms
        self._clock = clock

    async def reserve(self, work: AuthUnitOfWork, address: EmailAddress, origin: Origin) -> Reservation | Locked:
        """Take a place for an attempt, unless one of its keys refuses: then nothing is counted or extended.

        A live session and a marked device have a budget of their own, so that no stranger can use it up; so has, for
        some time, the client address that has reset the password.
        """
        now = self._clock.now()
        keys, counted = self._keys(address, origin)
        counters = await work.attempts.lock(keys)
        if counters[keys[0]].is_trusted(now):
            keys, counted = keys[:1], keys[1:]
        refusals = [(wait, key.scope) for key in keys if (wait := counters[key].refuses(key.scope, now)) is not None]
        if refusals:
            wait, scope = max(refusals, key=lambda refusal: refusal[0])
            return Locked(scope, wait.total_seconds())
        await work.attempts.save({key: counters[key].with_reservation(key.scope, now) for key in keys})
        return Reservation(now, keys, counted)

    async def fail(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Count a failure under every key; the one too many locks.

        Under a further key that is locked it does not count, as no attempt does that the lock would have refused.
        """
        now = self._clock.now()
        counters = await work.attempts.lock([*reservation.keys, *reservation.counted])
        failed = {key: counters[key].without_reservation(reservation.at) for key in reservation.keys}
        failed |= {key: counters[key] for key in reservation.counted if not counters[key].is_locked(now)}
        await work.attempts.save({key: each.with_failure(key.scope, now) for key, each in failed.items()})

    async def succeed(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Drop the account's counter for this client address, device or session; the others stay as they were."""
        await self.release(work, reservation)
        await work.attempts.delete([key for key in reservation.keys if key.scope in _CLEARED_BY_SUCCESS])

    async def release(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Give the place of an attempt back that was no failure."""
        counters = await work.attempts.lock(reservation.keys)
        await work.attempts.save(
            {key: counter.without_reservation(reservation.at) for key, counter in counters.items()}
        )

    async def reset(self, work: AuthUnitOfWork, address: EmailAddress, client: Client) -> None:
        """Forget every failure at an account, after its password was reset by mail; those of client addresses stay.

        For as long as `RESET_TRUST`, failures of others do not lock this client address out of the account again; its
        own still do.
        """
        account = self._pseudonyms.of_address(address)
        pair = self._pair(account, client)
        await work.attempts.delete_for_account(account, also_lock=[pair])
        await work.attempts.lock([pair])
        await work.attempts.save({pair: Counter(trusted_until=self._clock.now() + RESET_TRUST)})

    def _keys(self, address: EmailAddress, origin: Origin) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
        """Return the keys that may refuse an attempt, the most particular first, and those that only count it."""
        account = self._pseudonyms.of_address(address)
        everybody = self._key(Scope.ACCOUNT, account)
        if origin.session_id is not None:
            return (self._key(Scope.SESSION, account, str(origin.session_id)),), (everybody,)
        if origin.device is not None:
            return (self._key(Scope.DEVICE, account, origin.device),), (everybody,)
        client = Key(Scope.CLIENT, self._pseudonyms.of(Scope.CLIENT.label, client_network(origin.client.ip)))
        return (self._pair(account, origin.client), everybody, client), ()

    def _pair(self, account: str, client: Client) -> Key:
        return self._key(Scope.PAIR, account, client_network(client.ip))

    def _key(self, scope: Scope, account: str, *more: str) -> Key:
        return Key(scope, self._pseudonyms.of(scope.label, account, *more), account)

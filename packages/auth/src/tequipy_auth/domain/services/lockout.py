"""Use of the lockout rules on stored counters."""

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
"""The scopes whose counters are deleted after a successful login, because they belong to the account's owner."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of an attempt: its client, and the device or session that gives it a separate counter."""

    client: Client
    device: str | None = None
    """The id of the device, if the client sent a valid device mark."""
    session_id: UUID | None = None
    """The id of the live session, if the attempt is made in one; it takes precedence over the device."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reserved attempt, which is in progress.

    Attributes:
        at: When it was reserved.
        keys: The keys under which it was reserved.
        counted: Further keys whose locks do not refuse it, but under which a failure is counted.
    """

    at: datetime
    keys: tuple[Key, ...]
    counted: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Locked:
    """An attempt that was refused; it is not counted."""

    scope: Scope
    retry_after: float
    """In seconds."""


class Lockout:
    """Applies the rules of `tequipy_auth.domain.lockout` to the counters in the database.

    An attempt is reserved before the password is hashed, so that concurrent attempts cannot exceed the number of
    failures that causes a lock. It ends with `fail`, `succeed` or `release`. An abandoned reservation expires, so that
    a process that dies does not lock anybody out.
    """

    def __init__(self, pseudonyms: Pseudonyms, clock: Clock) -> None:
        self._pseudonyms = pseudonyms
        self._clock = clock

    async def reserve(self, work: AuthUnitOfWork, address: EmailAddress, origin: Origin) -> Reservation | Locked:
        """Reserve an attempt, or return `Locked` if one of its keys is locked; a refused attempt changes no counter.

        An attempt in a live session or with a device mark has a counter of its own, which an attacker cannot use up.
        The client address that reset the password has one for some time too.
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
        """Count a failure under every key; it may cause locks.

        Under the keys of `counted` that are locked, the failure is not counted, like any attempt during a lock.
        """
        now = self._clock.now()
        counters = await work.attempts.lock([*reservation.keys, *reservation.counted])
        failed = {key: counters[key].without_reservation(reservation.at) for key in reservation.keys}
        failed |= {key: counters[key] for key in reservation.counted if not counters[key].is_locked(now)}
        await work.attempts.save({key: each.with_failure(key.scope, now) for key, each in failed.items()})

    async def succeed(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Delete the account's counter for this client address, device or session; the others stay unchanged."""
        await self.release(work, reservation)
        await work.attempts.delete([key for key in reservation.keys if key.scope in _CLEARED_BY_SUCCESS])

    async def release(self, work: AuthUnitOfWork, reservation: Reservation) -> None:
        """Remove the reservation of an attempt that did not fail."""
        counters = await work.attempts.lock(reservation.keys)
        await work.attempts.save(
            {key: counter.without_reservation(reservation.at) for key, counter in counters.items()}
        )

    async def reset(self, work: AuthUnitOfWork, address: EmailAddress, client: Client) -> None:
        """Delete the counters of an account after a password reset; counters for all accounts of a client address stay.

        For `RESET_TRUST`, failures of other clients do not lock this client address out of the account again; its own
        do.
        """
        account = self._pseudonyms.of_address(address)
        pair = self._pair(account, client)
        await work.attempts.delete_for_account(account, also_lock=[pair])
        await work.attempts.lock([pair])
        await work.attempts.save({pair: Counter(trusted_until=self._clock.now() + RESET_TRUST)})

    def _keys(self, address: EmailAddress, origin: Origin) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
        """Return the keys that can refuse an attempt, most specific first, and the keys that only count a failure."""
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

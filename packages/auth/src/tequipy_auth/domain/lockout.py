"""Lockout rules against password guessing (OWASP ASVS 5.0, V6.3.1): when to lock a key, and for how long.

Each failure after a lock causes a further lock that lasts twice as long, up to a maximum.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple
from uuid import UUID

from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.value_objects import Client, EmailAddress
from tequipy_platform import Clock

FIRST_LOCK: Final = timedelta(seconds=30)
"""The duration of the first lock; each further lock lasts twice as long as the one before it, up to `MAX_LOCK`."""

MAX_LOCK: Final = timedelta(minutes=15)

COUNTER_TTL: Final = timedelta(hours=12)
"""How long after its last failure a counter expires, together with its locks."""

RESET_TRUST: Final = timedelta(hours=1)
"""How long after a password reset failures of other clients do not lock out the client address that made the reset."""

IPV6_PREFIX: Final = 64
"""Prefix length of the IPv6 network that counts as one client address: one subscriber controls all of a /64."""

RESERVATION_TTL: Final = timedelta(minutes=1)
"""How long a reservation counts when its attempt is never finished, because the process or the database failed."""

MAX_CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far in the future a stored time may be.

Clocks usually differ by less (`policy.LEEWAY`). A time further in the future was written by a wrong clock that has
since been corrected. It is ignored, because it would lock a key until that time.
"""

BUSY_RETRY_AFTER: Final = timedelta(seconds=1)
"""The `Retry-After` of a response when too many attempts are in progress."""


class Scope(Enum):
    """The subject of a failure counter, and the number of failures within a period that causes a lock."""

    PAIR = "pair", 5, timedelta(minutes=15)
    """Attempts at one account from one client address."""
    ACCOUNT = "account", 20, timedelta(hours=1)
    """Attempts at one account from any client."""
    CLIENT = "client", 50, timedelta(hours=1)
    """Attempts at any account from one client address."""
    DEVICE = "device", 5, timedelta(minutes=15)
    """Attempts at one account from one device that has logged in to it before."""
    SESSION = "session", 5, timedelta(minutes=15)
    """Attempts at one account within one of its live sessions."""

    def __init__(self, label: str, failures: int, period: timedelta) -> None:
        self.label = label
        self.failures = failures
        self.period = period

    @property
    def resets_after_period(self) -> bool:
        """Whether the lock duration starts again at its minimum once the period has passed since the first lock.

        Anybody can cause failures of these keys at any time, and could otherwise keep the longest lock in place for
        ever.
        """
        return self in {Scope.ACCOUNT, Scope.CLIENT}


@dataclass(frozen=True, slots=True)
class Key:
    """The key of a counter, which contains only pseudonyms; `account` is None for a key that covers all accounts."""

    scope: Scope
    name: str
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    """The failures, reservations and locks of one key; an empty counter is equivalent to none."""

    failed_at: tuple[datetime, ...] = ()
    """The failures within the scope's period, oldest first; always includes the latest failure."""
    reserved_at: tuple[datetime, ...] = ()
    """When the attempts that are in progress were reserved."""
    locks: int = 0
    """How many locks there have been."""
    locked_until: datetime | None = None
    first_locked_at: datetime | None = None
    """When the first lock began."""
    trusted_until: datetime | None = None
    """Only for `Scope.PAIR`: until when locks of other keys do not apply, because this client reset the password by
    mail."""

    @property
    def expires_at(self) -> datetime | None:
        """When the counter can be deleted; None if it is empty."""
        ends = [*(at + COUNTER_TTL for at in self.failed_at[-1:]), *(at + RESERVATION_TTL for at in self.reserved_at)]
        return max([*ends, *filter(None, [self.trusted_until])], default=None)

    def is_locked(self, now: datetime) -> bool:
        """Return whether a lock is in effect."""
        return self.locked_until is not None and now < self.locked_until <= now + MAX_LOCK + MAX_CLOCK_SKEW

    def is_trusted(self, now: datetime) -> bool:
        """Return whether locks of other keys do not apply to this pair."""
        return self.trusted_until is not None and self.trusted_until > now

    def refuses(self, scope: Scope, now: datetime) -> timedelta | None:
        """Return for how long an attempt is refused, or None if it is allowed.

        It is refused while a lock is in effect. It is also refused while so many attempts are in progress that the next
        lock would follow if all of them failed.
        """
        if self.locked_until is not None and self.is_locked(now):
            return self.locked_until - now
        counter = self._without_expired(scope, now)
        left = scope.failures - len(_recent(counter.failed_at, scope, now))
        allowed = 1 if counter.locks else max(1, left)
        return None if len(counter.reserved_at) < allowed else BUSY_RETRY_AFTER

    def with_reservation(self, scope: Scope, now: datetime) -> "Counter":
        """Return the counter with one more attempt in progress."""
        counter = self._without_expired(scope, now)
        return replace(counter, reserved_at=(*counter.reserved_at, now))

    def without_reservation(self, at: datetime) -> "Counter":
        """Return the counter without a reservation whose attempt ended without a failure."""
        rest = list(self.reserved_at)
        if at in rest:
            rest.remove(at)
        return replace(self, reserved_at=tuple(rest))

    def with_failure(self, scope: Scope, now: datetime) -> "Counter":
        """Return the counter after one more failure; once there has been a lock, every failure causes the next lock."""
        counter = self._without_expired(scope, now)
        counter = replace(counter, failed_at=(*counter.failed_at, now))
        if len(_recent(counter.failed_at, scope, now)) < scope.failures and not counter.locks:
            return counter
        return replace(
            counter,
            locks=counter.locks + 1,
            locked_until=now + _lock(counter.locks),
            first_locked_at=counter.first_locked_at or now,
        )

    def _without_expired(self, scope: Scope, now: datetime) -> "Counter":
        """Return the counter without expired data and without times that are too far in the future.

        Expired are: the whole counter, the number of past locks, failures outside the period, and abandoned
        reservations.
        """
        latest = now + MAX_CLOCK_SKEW
        reserved_at = tuple(at for at in self.reserved_at if now - RESERVATION_TTL < at <= latest)
        plausible = tuple(at for at in self.failed_at if at <= latest)
        if not plausible or plausible[-1] <= now - COUNTER_TTL:
            return Counter(reserved_at=reserved_at, trusted_until=self.trusted_until)
        failed_at = _recent(plausible, scope, now) or plausible[-1:]
        counter = replace(self, failed_at=failed_at, reserved_at=reserved_at)
        # Rows of an earlier release have no time of the first lock; the latest lock is the best approximation.
        first_lock = self.first_locked_at or self.locked_until
        if (
            scope.resets_after_period
            and first_lock is not None
            and first_lock <= now - scope.period
            and not self.is_locked(now)
        ):
            return replace(counter, locks=0, locked_until=None, first_locked_at=None)
        return counter


class LoginAttempts(ABC):
    """The stored counters of failed attempts, one for each key, within one unit of work."""

    @abstractmethod
    async def lock(self, keys: Collection[Key]) -> Mapping[Key, Counter]:
        """Lock the keys until the unit of work ends and return their counters; a new key has an empty counter."""

    @abstractmethod
    async def save(self, counters: Mapping[Key, Counter]) -> None:
        """Store the counters of locked keys."""

    @abstractmethod
    async def release(self, keys: Collection[Key], at: datetime, *, delete: Collection[Key] = ()) -> None:
        """Remove a reservation of that time from the counter of each key; delete the counters of the keys `delete`."""

    @abstractmethod
    async def delete_for_account(self, account: str, *, keep: Key | None = None) -> None:
        """Delete every counter of an account, including those of its client addresses, devices and sessions.

        The counter of `keep`, if it is given, remains and is locked, as by `lock`. All are locked in one order, so that
        no concurrent attempt causes a deadlock.
        """

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` counters that expired before that time and return the number of deleted rows."""


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


class _AttemptKeys(NamedTuple):
    """The keys of one attempt."""

    own: Key
    """The key of the client address, device or session at this account."""
    shared: tuple[Key, ...]
    """Further keys that can refuse the attempt, and that attempts of other clients use too."""
    counted: tuple[Key, ...]
    """The keys whose locks do not refuse the attempt, but under which a failure is counted."""

    @property
    def refusing(self) -> tuple[Key, ...]:
        """All keys that can refuse the attempt, most specific first."""
        return (self.own, *self.shared)


_CLEARED_BY_SUCCESS: Final = frozenset({Scope.PAIR, Scope.DEVICE, Scope.SESSION})
"""The scopes whose counters are deleted after a successful login, because they belong to the account's owner."""


class Lockout:
    """Applies the rules to stored counters.

    An attempt is reserved before the password is hashed, so that concurrent attempts cannot exceed the number of
    failures that causes a lock. It ends with `fail`, `succeed` or `release`. An abandoned reservation expires, so that
    a process that dies does not lock anybody out.
    """

    def __init__(self, pseudonyms: Pseudonyms, clock: Clock) -> None:
        self._pseudonyms = pseudonyms
        self._clock = clock

    async def reserve(self, attempts: LoginAttempts, address: EmailAddress, origin: Origin) -> Reservation | Locked:
        """Reserve an attempt, or return `Locked` if one of its keys is locked; a refused attempt changes no counter.

        An attempt in a live session or with a device mark has a counter of its own, which an attacker cannot use up.
        The client address that reset the password has one for some time too.
        """
        now = self._clock.now()
        keys = self._keys(address, origin)
        counters = await attempts.lock(keys.refusing)
        if counters[keys.own].is_trusted(now):
            keys = keys._replace(shared=(), counted=keys.shared)
        waits = [(counters[key].refuses(key.scope, now), key.scope) for key in keys.refusing]
        refusals = [(wait, scope) for wait, scope in waits if wait is not None]
        if refusals:
            wait, scope = max(refusals, key=lambda refusal: refusal[0])
            return Locked(scope, wait.total_seconds())
        await attempts.save({key: counters[key].with_reservation(key.scope, now) for key in keys.refusing})
        return Reservation(now, keys.refusing, keys.counted)

    async def fail(self, attempts: LoginAttempts, reservation: Reservation) -> None:
        """Count a failure under every key; it may cause locks.

        Under the keys of `counted` that are locked, the failure is not counted, like any attempt during a lock.
        """
        now = self._clock.now()
        counters = await attempts.lock([*reservation.keys, *reservation.counted])
        failed = {key: counters[key].without_reservation(reservation.at) for key in reservation.keys}
        failed |= {key: counters[key] for key in reservation.counted if not counters[key].is_locked(now)}
        await attempts.save({key: each.with_failure(key.scope, now) for key, each in failed.items()})

    async def succeed(self, attempts: LoginAttempts, reservation: Reservation) -> None:
        """Delete the account's counter for this client address, device or session; the others stay unchanged."""
        cleared = [key for key in reservation.keys if key.scope in _CLEARED_BY_SUCCESS]
        await attempts.release(reservation.keys, reservation.at, delete=cleared)

    async def release(self, attempts: LoginAttempts, reservation: Reservation) -> None:
        """Remove the reservation of an attempt that did not fail."""
        await attempts.release(reservation.keys, reservation.at)

    async def reset(self, attempts: LoginAttempts, address: EmailAddress, client: Client) -> None:
        """Delete the counters of an account after a password reset; counters for all accounts of a client address stay.

        For `RESET_TRUST`, failures of other clients do not lock this client address out of the account again; its own
        do.
        """
        account = self._pseudonyms.of_address(address)
        pair = self._pair(account, client)
        await attempts.delete_for_account(account, keep=pair)
        await attempts.save({pair: Counter(trusted_until=self._clock.now() + RESET_TRUST)})

    async def unlock(self, attempts: LoginAttempts, address: EmailAddress) -> None:
        """Delete the counters of an account; those for all accounts of a client address stay."""
        await attempts.delete_for_account(self._pseudonyms.of_address(address))

    def _keys(self, address: EmailAddress, origin: Origin) -> _AttemptKeys:
        """Return the keys of an attempt."""
        account = self._pseudonyms.of_address(address)
        everybody = self._key(Scope.ACCOUNT, account)
        if origin.session_id is not None:
            return _AttemptKeys(self._key(Scope.SESSION, account, str(origin.session_id)), (), (everybody,))
        if origin.device is not None:
            return _AttemptKeys(self._key(Scope.DEVICE, account, origin.device), (), (everybody,))
        client = Key(Scope.CLIENT, self._pseudonyms.of(Scope.CLIENT.label, origin.client.network(IPV6_PREFIX)))
        return _AttemptKeys(self._pair(account, origin.client), (everybody, client), ())

    def _pair(self, account: str, client: Client) -> Key:
        return self._key(Scope.PAIR, account, client.network(IPV6_PREFIX))

    def _key(self, scope: Scope, account: str, *more: str) -> Key:
        return Key(scope, self._pseudonyms.of(scope.label, account, *more), account)


def _recent(failed_at: tuple[datetime, ...], scope: Scope, now: datetime) -> tuple[datetime, ...]:
    return tuple(at for at in failed_at if at > now - scope.period)


def _lock(locks_before: int) -> timedelta:
    # The limit avoids an overflow of timedelta; ten doublings exceed the maximum lock anyway.
    doublings = min(locks_before, 10)
    return min(MAX_LOCK, FIRST_LOCK * float(2**doublings))

"""The ladder of locks against guessing (OWASP ASVS 5.0, V6.3.1): what is too often, and how long it locks."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final

FIRST_LOCK: Final = timedelta(seconds=30)
"""Each further lock lasts twice as long, up to the longest."""

MAX_LOCK: Final = timedelta(minutes=15)

COUNTER_TTL: Final = timedelta(hours=12)
"""How long after its last failure a counter is forgotten, its locks with it."""

RESET_TRUST: Final = timedelta(hours=1)
"""How long after a reset by mail the client address that made it is not locked by what others do."""

RESERVATION_TTL: Final = timedelta(minutes=1)
"""How long an attempt holds its place when nobody says how it ended: its process died, or the database was away."""

MAX_CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far the clocks of two processes may differ. What is further ahead was noted by a clock that has been put right
since: it counts as nothing, or it would lock until that time has come."""

BUSY_RETRY_AFTER: Final = timedelta(seconds=1)
"""When to try again while all places are taken."""


class Scope(Enum):
    """Whose failures are counted together: how many of them, within how long, lock."""

    PAIR = "pair", 5, timedelta(minutes=15)
    """One account from one client address."""
    ACCOUNT = "account", 20, timedelta(hours=1)
    """One account from anywhere."""
    CLIENT = "client", 50, timedelta(hours=1)
    """Any account from one client address."""
    DEVICE = "device", 5, timedelta(minutes=15)
    """One account from one device that has logged in to it before."""
    SESSION = "session", 5, timedelta(minutes=15)
    """One account from one of its live sessions."""

    def __init__(self, label: str, failures: int, period: timedelta) -> None:
        self.label = label
        self.failures = failures
        self.period = period

    @property
    def resets_after_period(self) -> bool:
        """Whether the ladder begins again at its first step once its period has passed since the first lock.

        Strangers can fail under these keys for ever: without an end they would keep the longest lock for ever too.
        """
        return self in {Scope.ACCOUNT, Scope.CLIENT}


@dataclass(frozen=True, slots=True)
class Key:
    """What a counter is kept under: pseudonyms alone. `account` is None where no one account is meant."""

    scope: Scope
    name: str
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    """What is remembered of one key; the empty one is as good as none."""

    failed_at: tuple[datetime, ...] = ()
    """The failures within the scope's period, oldest first, and always the latest one."""
    reserved_at: tuple[datetime, ...] = ()
    """The attempts that are being looked at."""
    locks: int = 0
    """How many steps of the ladder were taken."""
    locked_until: datetime | None = None
    first_locked_at: datetime | None = None
    """When the first step of the ladder was taken."""
    trusted_until: datetime | None = None
    """Of a pair: until when the other keys' locks do not refuse it, for it has reset the password by mail."""

    @property
    def expires_at(self) -> datetime | None:
        """When it is forgotten; None: there is nothing to remember."""
        ends = [*(at + COUNTER_TTL for at in self.failed_at[-1:]), *(at + RESERVATION_TTL for at in self.reserved_at)]
        return max([*ends, *filter(None, [self.trusted_until])], default=None)

    def is_locked(self, now: datetime) -> bool:
        """Return whether a lock has not ended yet."""
        return self.locked_until is not None and now < self.locked_until <= now + MAX_LOCK + MAX_CLOCK_SKEW

    def is_trusted(self, now: datetime) -> bool:
        """Return whether the locks of other keys do not count for this pair."""
        return self.trusted_until is not None and self.trusted_until > now

    def refuses(self, scope: Scope, now: datetime) -> timedelta | None:
        """Tell for how long an attempt is refused unseen; None: it may be looked at.

        A lock refuses, and so do as many attempts under way as could, if they all failed, cause the next lock.
        """
        if self.locked_until is not None and self.is_locked(now):
            return self.locked_until - now
        counter = self._as_of(scope, now)
        left = scope.failures - len(_recent(counter.failed_at, scope, now))
        chances = 1 if counter.locks else max(1, left)
        return None if len(counter.reserved_at) < chances else BUSY_RETRY_AFTER

    def with_reservation(self, scope: Scope, now: datetime) -> "Counter":
        """Return the counter while one more attempt is being looked at."""
        counter = self._as_of(scope, now)
        return replace(counter, reserved_at=(*counter.reserved_at, now))

    def without_reservation(self, at: datetime) -> "Counter":
        """Return the counter after an attempt was looked at that was no failure."""
        rest = list(self.reserved_at)
        if at in rest:
            rest.remove(at)
        return replace(self, reserved_at=tuple(rest))

    def with_failure(self, scope: Scope, now: datetime) -> "Counter":
        """Return the counter after one more failure: once there was a lock, each takes the next step."""
        counter = self._as_of(scope, now)
        counter = replace(counter, failed_at=(*counter.failed_at, now))
        if len(_recent(counter.failed_at, scope, now)) < scope.failures and not counter.locks:
            return counter
        return replace(
            counter,
            locks=counter.locks + 1,
            locked_until=now + _lock(counter.locks),
            first_locked_at=counter.first_locked_at or now,
        )

    def _as_of(self, scope: Scope, now: datetime) -> "Counter":
        """Forget what is over, and what a clock noted that was ahead.

        Over are a dead counter, a ladder, failures beyond the period, and attempts that nobody finished.
        """
        latest = now + MAX_CLOCK_SKEW
        reserved_at = tuple(at for at in self.reserved_at if now - RESERVATION_TTL < at <= latest)
        noted = tuple(at for at in self.failed_at if at <= latest)
        if not noted or noted[-1] <= now - COUNTER_TTL:
            return Counter(reserved_at=reserved_at, trusted_until=self.trusted_until)
        failed_at = _recent(noted, scope, now) or noted[-1:]
        counter = replace(self, failed_at=failed_at, reserved_at=reserved_at)
        # A release before this one kept no beginning: its latest lock is the best that is known.
        began = self.first_locked_at or self.locked_until
        if scope.resets_after_period and began is not None and began <= now - scope.period and not self.is_locked(now):
            return replace(counter, locks=0, locked_until=None, first_locked_at=None)
        return counter


def client_network(ip: str | None) -> str:
    """Return what counts as one client address: an IPv4 address, or the /64 that one IPv6 subscriber has."""
    try:
        address = ip_address(ip or "")
    except ValueError:
        return "unknown"
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def _recent(failed_at: tuple[datetime, ...], scope: Scope, now: datetime) -> tuple[datetime, ...]:
    return tuple(at for at in failed_at if at > now - scope.period)


def _lock(locks_before: int) -> timedelta:
    doublings = min(locks_before, 10)  # beyond the longest, within any timedelta
    return min(MAX_LOCK, FIRST_LOCK * float(2**doublings))

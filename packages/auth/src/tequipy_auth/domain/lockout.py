"""The ladder of locks against guessing (OWASP ASVS 5.0, V6.3.1): what is too often, and how long it locks."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final

FIRST_LOCK: Final = timedelta(seconds=30)
"""Each further lock lasts twice as long, up to the longest."""

LONGEST_LOCK: Final = timedelta(minutes=15)

MEMORY: Final = timedelta(hours=12)
"""How long after its last failure a counter is forgotten, its locks with it."""


RESERVATION_LIFE: Final = timedelta(minutes=1)
"""How long an attempt holds its place when nobody says how it ended: its process died, or the database was away."""

BUSY: Final = timedelta(seconds=1)
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
    """One account from one browser that has logged in to it before."""

    def __init__(self, label: str, failures: int, period: timedelta) -> None:
        self.label = label
        self.failures = failures
        self.period = period


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

    @property
    def dies_at(self) -> datetime | None:
        """When it is forgotten; None: there is nothing to remember."""
        ends = [*(at + MEMORY for at in self.failed_at[-1:]), *(at + RESERVATION_LIFE for at in self.reserved_at)]
        return max(ends, default=None)

    def refuses(self, scope: Scope, now: datetime) -> timedelta | None:
        """Tell for how long an attempt is refused unseen; None: it may be looked at.

        A lock refuses, and so do as many attempts under way as could, if they all failed, cause the next lock.
        """
        if self.locked_until is not None and self.locked_until > now:
            return self.locked_until - now
        counter = self._as_of(scope, now)
        chances = 1 if counter.locks else scope.failures - len(_recent(counter.failed_at, scope, now))
        return None if len(counter.reserved_at) < chances else BUSY

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
        return replace(counter, locks=counter.locks + 1, locked_until=now + _lock(counter.locks))

    def _as_of(self, scope: Scope, now: datetime) -> "Counter":
        """Forget what is over: a whole dead counter, failures beyond the period, attempts that nobody finished."""
        reserved_at = tuple(at for at in self.reserved_at if at > now - RESERVATION_LIFE)
        if not self.failed_at or self.failed_at[-1] <= now - MEMORY:
            return Counter(reserved_at=reserved_at)
        failed_at = _recent(self.failed_at, scope, now) or self.failed_at[-1:]
        return replace(self, failed_at=failed_at, reserved_at=reserved_at)


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
    return min(LONGEST_LOCK, FIRST_LOCK * float(2**doublings))

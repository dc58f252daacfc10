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
    locks: int = 0
    """How many steps of the ladder were taken."""
    locked_until: datetime | None = None

    @property
    def dies_at(self) -> datetime | None:
        """When it is forgotten; None: there is nothing to remember."""
        return self.failed_at[-1] + MEMORY if self.failed_at else None

    def is_locked(self, now: datetime) -> bool:
        """Tell whether an attempt is refused unseen."""
        return self.locked_until is not None and self.locked_until > now

    def with_failure(self, scope: Scope, now: datetime) -> "Counter":
        """Return the counter after one more failure: once there was a lock, each takes the next step."""
        before = Counter() if self.dies_at is not None and self.dies_at <= now else self
        recent = tuple(at for at in before.failed_at if at > now - scope.period)
        failed_at = (*(recent or before.failed_at[-1:]), now)
        if len(recent) + 1 < scope.failures and not before.locks:
            return replace(before, failed_at=failed_at)
        return Counter(failed_at, before.locks + 1, now + _lock(before.locks))

    def without_failure(self, failed_at: datetime, locked_until: datetime | None) -> "Counter":
        """Take back a failure that was none, with the lock that it caused (None: it caused none)."""
        rest = list(self.failed_at)
        if failed_at in rest:
            rest.remove(failed_at)
        counter = replace(self, failed_at=tuple(rest))
        if locked_until is None or not self.locks:
            return counter
        still = None if self.locked_until == locked_until else self.locked_until
        return replace(counter, locks=self.locks - 1, locked_until=still)


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


def _lock(locks_before: int) -> timedelta:
    doublings = min(locks_before, 10)  # beyond the longest, within any timedelta
    return min(LONGEST_LOCK, FIRST_LOCK * float(2**doublings))

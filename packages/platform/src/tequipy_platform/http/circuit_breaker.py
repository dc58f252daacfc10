"""The circuit breaker of a host. Times are seconds of a monotonic clock, and are passed in."""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tequipy_platform.http.errors import CircuitOpen

WINDOW: Final = 30
"""Seconds whose calls the breaker judges, counted in whole seconds of the clock."""
CALLS: Final = 20
"""The breaker stays closed with fewer calls than this in its window."""
SHARE: Final = 0.5
"""The share of failed calls that opens the breaker."""
OPEN_SECONDS: Final = 15
PROBES: Final = 3
"""Calls that an open breaker admits after `OPEN_SECONDS`; it closes when all of them have succeeded."""


class Outcome(Enum):
    """What an attempt says about the host."""

    SUCCEEDED = auto()
    FAILED = auto()
    UNKNOWN = auto()
    """The attempt ended for a reason of the caller's own."""


@dataclass(slots=True)
class _Second:
    """The ended calls of one second."""

    start: int
    succeeded: int = 0
    failed: int = 0


class CircuitBreaker:
    """Refuses the calls to a host of which most of the last ones failed.

    Each call is admitted by `admit`, which returns a ticket, and is recorded with it by `record`. A ticket from before
    the breaker opened or closed counts no more, so that a late answer decides about no probe.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._seconds: deque[_Second] = deque()
        self._opened_at: float | None = None
        self._probes = 0
        self._succeeded_probes = 0
        self._ticket = 0

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open, or waits for its probes."""
        return self._opened_at is not None

    def admit(self, now: float) -> int:
        """Admit a call; raises `CircuitOpen` if the host has failed too often."""
        if self._opened_at is not None:
            wait = self._opened_at + OPEN_SECONDS - now
            if wait > 0 or self._probes >= PROBES:
                raise CircuitOpen(self._host, retry_after=max(wait, 0.0))
            self._probes += 1
        return self._ticket

    def record(self, ticket: int, outcome: Outcome, now: float) -> None:
        """Record how an admitted call ended, and open or close the breaker."""
        if ticket != self._ticket:
            return
        if self._opened_at is not None:
            self._record_probe(outcome, now)
        elif outcome is Outcome.SUCCEEDED:
            self._second(now).succeeded += 1
        elif outcome is Outcome.FAILED:
            self._second(now).failed += 1
            failed = sum(each.failed for each in self._seconds)
            calls = failed + sum(each.succeeded for each in self._seconds)
            if calls >= CALLS and failed >= SHARE * calls:
                self._open(now)

    def _record_probe(self, outcome: Outcome, now: float) -> None:
        if outcome is Outcome.FAILED:
            self._open(now)
        elif outcome is Outcome.UNKNOWN:
            self._probes -= 1  # another call takes its place
        else:
            self._succeeded_probes += 1
            if self._succeeded_probes == PROBES:
                self._opened_at = None
                self._ticket += 1
                self._seconds.clear()

    def _open(self, now: float) -> None:
        self._opened_at = now
        self._probes = self._succeeded_probes = 0
        self._ticket += 1

    def _second(self, now: float) -> _Second:
        """Return the counts of the current second, and forget those that are older than the window."""
        while self._seconds and self._seconds[0].start <= now - WINDOW:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1].start != int(now):
            self._seconds.append(_Second(int(now)))
        return self._seconds[-1]

"""Background tasks as data: what runs, when, where, how long, and what happens when it fails."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Crontab:
    """A schedule in cron's five fields, in UTC."""

    minute: str = "*"
    hour: str = "*"
    day_of_month: str = "*"
    month_of_year: str = "*"
    day_of_week: str = "*"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a failed task is tried again.

    `attempts` counts the first one. The wait before attempt n+1 is drawn from 0 to `min(cap, base * 2**(n-1))` (full
    jitter), `base` and `cap` being times. An error of a type in `permanent` is not tried again. With a `lifetime`, a
    message of the outbox is tried again until its first failure is that long ago, however many attempts that takes;
    `attempts` then counts only for messages that came by another way, and for those that kill their process.
    """

    attempts: int = 5
    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=2)
    permanent: tuple[type[Exception], ...] = ()
    lifetime: timedelta | None = None

    def longest_wait(self, failed_attempts: int) -> timedelta:
        """Return the upper bound of the wait after `failed_attempts` (1 or more) failures."""
        doublings = min(failed_attempts - 1, 30)  # a billion times the base: beyond any cap, within any timedelta
        return min(self.cap, self.base * float(2**doublings))

    def gives_up(self, failed_attempts: int, error: Exception, *, failing_for: timedelta | None = None) -> bool:
        """Return whether no further attempt follows `error`, the `failed_attempts`-th failure.

        `failing_for` is the time since the first failure; None where it is not known.
        """
        if isinstance(error, self.permanent):
            return True
        if self.lifetime is not None and failing_for is not None:
            return failing_for >= self.lifetime
        return failed_attempts >= self.attempts


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as its handler sees it: `id` is the same at every attempt, so it is what idempotency stands on."""

    id: UUID
    task: str
    attempt: int = 1


Handler = Callable[..., Coroutine[Any, Any, None]]
"""A bound coroutine method of a built service, called as `handler(delivery, **payload)`."""


@dataclass(frozen=True, slots=True)
class Task:
    """A named piece of background work; `name` is the package, a dot and a verb, as `auth.send_mail`."""

    name: str
    handler: Handler
    on: tuple[str, ...] = ()
    """Names of events: an event row becomes one message for each task that names it."""
    every: timedelta | Crontab | None = None
    """Its schedule; None: it runs only when asked for."""
    queue: str = "default"
    time_limit: timedelta = timedelta(minutes=5)
    """After this long the attempt is killed; must fit the broker's visibility timeout, which is checked at start."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)

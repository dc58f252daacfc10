"""Declarations of background tasks: schedule, queue, time limit and retry policy."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

DEFAULT_QUEUE: Final = "default"


@dataclass(frozen=True, slots=True)
class Crontab:
    """A schedule in the five fields of cron, in UTC, as Debian's cron reads them.

    If both `day_of_month` and `day_of_week` are restricted, a day that matches either of them is due.
    """

    minute: str = "*"
    hour: str = "*"
    day_of_month: str = "*"
    month_of_year: str = "*"
    day_of_week: str = "*"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed message is tried again, and how long.

    The wait before attempt n+1 is random between 0 and `min(cap, base * 2**(n-1))` (full jitter). A message is retried
    until its first failure is `lifetime` ago, or until `attempts`, which includes the first one, have failed. An error
    of a type in `permanent` is never retried. A message becomes a dead letter earlier if `deaths` of its attempts have
    killed their process.
    """

    attempts: int | None = None
    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=2)
    permanent: tuple[type[Exception], ...] = ()
    lifetime: timedelta = timedelta(hours=1)
    deaths: int = 5

    def max_wait(self, failed_attempts: int) -> timedelta:
        """Return the upper bound of the wait after `failed_attempts` (1 or more) failures."""
        doublings = min(failed_attempts - 1, 30)  # 2**30 exceeds every cap, and the product still fits a timedelta
        return min(self.cap, self.base * float(2**doublings))

    def is_final_failure(self, failed_attempts: int, error: BaseException, *, failing_for: timedelta) -> bool:
        """Return whether no further attempt follows `error`, which is failure number `failed_attempts`.

        `failing_for` is the time since the first failure.
        """
        if isinstance(error, self.permanent) or failing_for >= self.lifetime:
            return True
        return self.attempts is not None and failed_attempts >= self.attempts


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as its handler sees it; `id` is the same at every attempt and serves as idempotency key."""

    id: UUID
    task: str
    attempt: int = 1


Handler = Callable[..., Coroutine[Any, Any, None]]
"""A bound coroutine method, called as `handler(delivery, **payload)`."""


@dataclass(frozen=True, slots=True)
class Task:
    """The declaration of background work; its name is the package, a dot and a verb (`auth.send_mail`).

    A package lists its tasks in its module `tasks` as `TASKS`, and returns their handlers from `build_handlers`.
    """

    name: str
    on: tuple[str, ...] = ()
    """Names of the events that this task is subscribed to: each event becomes one message for the task."""
    every: timedelta | Crontab | None = None
    """The schedule; None for a task that runs only on request. A period, of at least a second, counts from 1970 in UTC:
    `timedelta(hours=1)` is due at each full hour. After a pause the latest missed occurrence is caught up."""
    queue: str = DEFAULT_QUEUE
    time_limit: timedelta | None = None
    """The attempt is killed after this time, which must be below the broker's visibility timeout (checked at start).
    None: the worker's own limit."""
    retry: RetryPolicy = RetryPolicy()

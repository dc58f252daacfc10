"""The occurrences of a schedule: functions of schedule and time alone, so that every process finds the same ones."""

from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim, CronSimError

from tequipy_platform._tasks import Crontab

SHORTEST_PERIOD: Final = timedelta(seconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS: Final = 5


def check_schedule(every: timedelta | Crontab) -> None:
    """Raise `ValueError` for a period of less than a second, and for fields that cron does not accept."""
    if isinstance(every, timedelta):
        if every < SHORTEST_PERIOD:
            raise ValueError(f"the period {every} is shorter than {SHORTEST_PERIOD}")
        return
    expression = _expression(every)
    if len(expression.split()) != _FIELDS:
        raise ValueError(f"the schedule {expression!r} has not {_FIELDS} fields")
    try:
        CronSim(expression, _EPOCH)
    except CronSimError as error:
        raise ValueError(f"the schedule {expression!r}: {error}") from None


def latest_occurrence(every: timedelta | Crontab, now: datetime) -> datetime | None:
    """Return the last occurrence that is not after `now`, in UTC; None if cron finds none within 50 years."""
    if isinstance(every, timedelta):
        return _EPOCH + (now - _EPOCH) // every * every
    # The search begins before its argument, and occurrences are at whole seconds.
    start = now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    return next(CronSim(_expression(every), start, reverse=True), None)


def due_occurrence(every: timedelta | Crontab, last: datetime, now: datetime) -> datetime | None:
    """Return the latest occurrence after `last` and not after `now`, or None if there is none."""
    latest = latest_occurrence(every, now)
    return latest if latest is not None and latest > last else None


def next_occurrence(every: timedelta | Crontab, now: datetime) -> datetime | None:
    """Return the first occurrence after `now`, in UTC; None if cron finds none within 50 years."""
    if isinstance(every, timedelta):
        return _EPOCH + ((now - _EPOCH) // every + 1) * every
    return next(CronSim(_expression(every), now.astimezone(UTC)), None)


def _expression(every: Crontab) -> str:
    return f"{every.minute} {every.hour} {every.day_of_month} {every.month_of_year} {every.day_of_week}"

"""Durations and limits that the rules of reports use."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final

MAX_DAYS: Final = 366
"""The number of days that a report can cover: a leap year."""

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)
_CENTURY: Final = 100 * 365 * _DAY
"""The maximum duration, so that the current time plus or minus it is a valid date."""


def _bounds(least: object, most: object = _CENTURY) -> Mapping[str, Any]:
    """Return the bounds of a field under the keys that pydantic reads from a dataclass."""
    return {"ge": least, "le": most}


@dataclass(frozen=True, slots=True)
class ReportPolicy:
    """Limits of reports; the section `policy` of `ReportingSettings`, which reports values out of bounds by name."""

    max_waiting: int = field(default=100, metadata=_bounds(1, 10_000))
    """The number of reports of one account that can be unfinished at a time."""
    max_bytes: int = field(default=1024**3, metadata=_bounds(1024, 5 * 1024**3))
    """The size in bytes of the largest report; a larger one fails with `too_large`."""
    max_duration: timedelta = field(default=4 * _MINUTE, metadata=_bounds(_SECOND))
    """How long one attempt at a report may take; then it fails with `timed_out`. The worker's own limit, if it is
    shorter, is used instead."""
    give_up_after: timedelta = field(default=15 * _MINUTE, metadata=_bounds(_SECOND))
    """How long after its first start a report is retried while the object storage fails."""
    stuck_after: timedelta = field(default=20 * _MINUTE, metadata=_bounds(_SECOND))
    """The time without progress after which a running report fails with `interrupted`. If a broker may take more than
    half of it to deliver the message of a killed worker again, twice that time is used instead."""
    retention: timedelta = field(default=30 * _DAY, metadata=_bounds(_MINUTE))
    """How long the file of a report is kept; then the report is `expired`."""
    row_retention: timedelta = field(default=90 * _DAY, metadata=_bounds(_MINUTE))
    """How long a report that has ended is listed."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a value out of bounds."""
        for each in fields(self):
            value, least, most = getattr(self, each.name), each.metadata["ge"], each.metadata["le"]
            if not least <= value <= most:
                raise ValueError(f"{each.name} is at least {least} and at most {most}")

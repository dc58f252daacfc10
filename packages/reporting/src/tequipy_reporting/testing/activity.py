"""The daily activity in memory."""

from collections.abc import Mapping, Sequence
from datetime import date

from tequipy_reporting.domain.activity import CountedDay, DailyActivity
from tequipy_reporting.domain.reports import Period
from tequipy_reporting.domain.repositories import Activity


class MemoryActivity(Activity):
    """Stores days by their date."""

    def __init__(self) -> None:
        self.rows: dict[date, CountedDay] = {}

    async def days(self, period: Period) -> Sequence[DailyActivity]:
        """Return the stored days of a period."""
        return [row.activity for row in self._of(period)]

    async def events(self, period: Period) -> Mapping[date, int]:
        """Return the numbers of events of a period."""
        return {row.activity.day: row.events for row in self._of(period)}

    async def put(self, counted: CountedDay) -> bool:
        """Store a day."""
        day = counted.activity.day
        if day in self.rows and self.rows[day].events > counted.events:
            return False
        self.rows[day] = counted
        return True

    def _of(self, period: Period) -> Sequence[CountedDay]:
        return [self.rows[day] for day in sorted(self.rows) if period.first_day <= day <= period.last_day]

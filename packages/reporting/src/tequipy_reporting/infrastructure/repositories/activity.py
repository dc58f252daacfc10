"""The daily activity on PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import date

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_reporting.domain.activity import CountedDay, DailyActivity
from tequipy_reporting.domain.reports import Period
from tequipy_reporting.domain.repositories import Activity
from tequipy_reporting.infrastructure.models import DailyActivityRow as Row


class SqlActivity(Activity):
    """Stores days in the session of a unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def days(self, period: Period) -> Sequence[DailyActivity]:
        """Select the days of a period."""
        columns = (Row.day, Row.registrations, Row.logins, Row.failed_logins, Row.active_users)
        query = select(*columns).where(Row.day.between(period.first_day, period.last_day)).order_by(Row.day)
        return [DailyActivity(*row) for row in await self._session.execute(query)]

    async def events(self, period: Period) -> Mapping[date, int]:
        """Select the numbers of events of a period."""
        query = select(Row.day, Row.events).where(Row.day.between(period.first_day, period.last_day))
        return dict(iter(await self._session.execute(query)))

    async def put(self, counted: CountedDay) -> bool:
        """Insert or update a row; a concurrent statement for the same day waits, and compares with what was stored."""
        activity = counted.activity
        values = {
            "events": counted.events,
            "registrations": activity.registrations,
            "logins": activity.logins,
            "failed_logins": activity.failed_logins,
            "active_users": activity.active_users,
            "counted_at": counted.counted_at,
        }
        statement = insert(Row).values(day=activity.day, **values)
        stored = await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=[Row.day], set_=values, where=Row.events <= statement.excluded.events
            ).returning(Row.day)
        )
        return stored.first() is not None

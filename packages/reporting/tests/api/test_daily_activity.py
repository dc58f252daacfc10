"""`GET /reports/daily-activity` over HTTP, in memory."""

from datetime import timedelta
from typing import Any

import pytest

from tequipy_platform.testing import EPOCH
from tequipy_reporting import DailyActivity
from tequipy_reporting.domain.activity import CountedDay
from tequipy_reporting.testing import MemoryReportingUnitOfWork

from .conftest import World

PATH = "/daily-activity"
TODAY, DAY = EPOCH.date(), timedelta(days=1)


def item(day: object, *numbers: int) -> dict[str, Any]:
    return dict(
        zip(
            ("day", "registrations", "logins", "failed_logins", "active_users"),
            (str(day), *(numbers or (0, 0, 0, 0))),
            strict=True,
        )
    )


async def test_each_day_of_the_period_is_returned(world: World, work: MemoryReportingUnitOfWork) -> None:
    """Both ends are included, in order, and days without events have zeros."""
    for days, events in ((0, 9), (2, 5), (3, 1)):
        day = TODAY - days * DAY
        activity = DailyActivity(day, registrations=1, logins=events, failed_logins=2, active_users=3)
        work.activity.rows[day] = CountedDay(activity, events, EPOCH)
    response = await world.call("GET", PATH, params={"from": str(TODAY - 2 * DAY), "to": str(TODAY)})
    assert response.status_code == 200
    assert response.json() == {"items": [item(TODAY - 2 * DAY, 1, 5, 2, 3), item(TODAY - DAY), item(TODAY, 1, 9, 2, 3)]}


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        ({}, {("/from", "missing"), ("/to", "missing")}),
        ({"from": "yesterday", "to": "0"}, {("/from", "date"), ("/to", "date")}),
        ({"from": "2026-02-30", "to": "2026-01-31"}, {("/from", "date_from_datetime_parsing")}),
        ({"from": "2026-01-31", "to": "2026-01-31T00:00:00"}, {("/to", "date")}),
        ({"from": "2026-01-02", "to": "2026-01-01"}, {("/to", "before_from")}),
        ({"from": "2025-01-01", "to": "2026-01-02"}, {("/to", "period_too_long")}),
        ({"from": str(TODAY), "to": str(TODAY + DAY)}, {("/to", "in_the_future")}),
    ],
)
async def test_wrong_periods_are_refused(world: World, query: dict[str, str], faults: set[tuple[str, str]]) -> None:
    """422 names the parameters: only days as 2026-01-31, in order, at most 366, and none in the future."""
    response = await world.call("GET", PATH, params=query)
    assert response.status_code == 422
    assert {(each["pointer"], each["code"]) for each in response.json()["errors"]} == faults


async def test_366_days_are_returned(world: World) -> None:
    """A leap year fits."""
    response = await world.call("GET", PATH, params={"from": str(TODAY - 365 * DAY), "to": str(TODAY)})
    assert len(response.json()["items"]) == 366

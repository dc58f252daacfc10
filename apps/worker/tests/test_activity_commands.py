"""`tequipy-worker rebuild-activity` on PostgreSQL."""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tequipy_platform import Unavailable
from tequipy_reporting import ActivityService
from tequipy_worker.cli import main

Rebuild = Callable[..., Result]
DAY = timedelta(days=1)
EVENT = text("""
    insert into auth.audit_events (id, at, subject_id, action, outcome, metadata)
    values (gen_random_uuid(), :at, gen_random_uuid(), 'login_ok', 'success', '{}')
""")
WRONG = text("""
    insert into reporting.daily_activity
        (day, events, registrations, logins, failed_logins, active_users, counted_at)
    values (:day, :events, 0, 99, 0, 0, now())
""")
LOGINS = text("select day, logins from reporting.daily_activity order by day")


@pytest.fixture
def rebuild(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Rebuild:
    """Return a function that runs the command on the database of the test."""
    variables = environment | {"TEQUIPY_CELERY__BROKER_URL": "redis://127.0.0.1:1/1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def run(since: object) -> Result:
        return CliRunner().invoke(main, ["rebuild-activity", "--since", str(since)], catch_exceptions=False)

    return run


def today() -> date:
    return datetime.now(UTC).date()


def execute(url: str, *statements: tuple[Any, dict[str, object]]) -> list[Any]:
    """Run statements in one transaction, and return the rows of the stored days."""

    async def run() -> list[Any]:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            for statement, values in statements:
                await connection.execute(statement, values)
            rows = list(await connection.execute(LOGINS))
        await engine.dispose()
        return rows

    return asyncio.run(run())


def event(days_ago: int) -> tuple[Any, dict[str, object]]:
    return EVENT, {"at": datetime.now(UTC).replace(hour=0, minute=0) - days_ago * DAY}


def wrong(days_ago: int, events: int) -> tuple[Any, dict[str, object]]:
    return WRONG, {"day": today() - days_ago * DAY, "events": events}


def test_each_day_is_counted_again(rebuild: Rebuild, database_url: str) -> None:
    """From the given day on each day is replaced or added; earlier days, and those of more events, are kept."""
    execute(database_url, event(2), event(2), event(1), event(3), wrong(3, 1), wrong(2, 2), wrong(1, 5))
    result = rebuild(today() - 2 * DAY)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "2 days counted"
    assert result.stderr == f"{today() - DAY} is kept: the audit holds fewer events than were counted\n"
    days = [(today() - n * DAY, logins) for n, logins in ((3, 99), (2, 2), (1, 99), (0, 0))]
    assert [tuple(row) for row in execute(database_url)] == days


def test_days_that_the_audit_does_not_hold_are_refused(rebuild: Rebuild, database_url: str) -> None:
    """The message names the first whole day of the audit, which is kept for 400 days; nothing is changed."""
    first = (datetime.now(UTC) - 400 * DAY + timedelta(hours=1)).date() + DAY
    for since in (today() - 400 * DAY, today() + DAY):
        result = rebuild(since)
        assert result.exit_code == 2
        assert f"should be from {first}, the first whole day in the audit, to {today()}" in result.stderr
    assert execute(database_url) == []


def test_a_day_has_one_form(rebuild: Rebuild) -> None:
    """A text that is no day is a wrong use of the command."""
    assert rebuild("yesterday").exit_code == 2


@pytest.mark.parametrize(
    ("error", "reason"), [(Unavailable(), Unavailable.detail), (KeyboardInterrupt(), "Interrupted.")], ids=repr
)
def test_an_interrupted_rebuild_can_be_continued(
    rebuild: Rebuild, database_url: str, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    """The message names the day to continue with, whether the database fails or a person stops it; done days stay."""
    recount = ActivityService.recount

    async def fail_on_the_third(self: ActivityService, day: date) -> bool:
        if day == today() - 3 * DAY:
            raise error
        return await recount(self, day)

    execute(database_url, *(event(n) for n in range(6)))
    monkeypatch.setattr(ActivityService, "recount", fail_on_the_third)
    result = rebuild(today() - 5 * DAY)
    assert result.exit_code == 1
    assert f"Error: {reason} Continue with --since {today() - 3 * DAY}.\n" in result.stderr
    assert [row.day for row in execute(database_url)] == [today() - 5 * DAY, today() - 4 * DAY]
    monkeypatch.setattr(ActivityService, "recount", recount)
    assert rebuild(today() - 3 * DAY).exit_code == 0
    assert [row.logins for row in execute(database_url)] == [1] * 6

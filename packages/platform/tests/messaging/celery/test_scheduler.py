"""The scheduler after a correction of the clock, with real tasks, a real schedule file and a real broker."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from celery.beat import Scheduler, Service
from pydantic import SecretStr
from redis import Redis

from tequipy_platform import Crontab, Task
from tequipy_platform.messaging.celery import CelerySettings, build_celery

AHEAD = timedelta(days=1000)


@pytest.fixture
def celery(redis_url: str) -> Iterator[Celery]:
    """Yield an app with a task every second, one every day and one at midnight."""
    tasks = [
        Task("test.often", every=timedelta(seconds=1)),
        Task("test.daily", every=timedelta(days=1), queue="email"),
        Task("test.midnight", every=Crontab(hour="0", minute="0"), queue="reports"),
    ]
    celery = build_celery(CelerySettings(broker_url=SecretStr(redis_url)), tasks, name="test")
    yield celery
    celery.close()


@pytest.fixture
def open_scheduler(celery: Celery, tmp_path: Path) -> Callable[[], Scheduler]:
    """Return a function that opens the schedule file as `tequipy-worker beat` does."""

    def open_it() -> Scheduler:
        service = Service(
            celery, schedule_filename=str(tmp_path / "schedule"), scheduler_cls=celery.conf.beat_scheduler
        )
        scheduler: Scheduler = service.scheduler
        return scheduler

    return open_it


def sent(redis_url: str, queue: str) -> int:
    with Redis.from_url(redis_url) as redis:
        return int(redis.llen(queue))


def tick_until_sent(scheduler: Scheduler, redis_url: str) -> None:
    deadline = time.monotonic() + 20
    while not sent(redis_url, "default"):
        assert time.monotonic() < deadline, "nothing was sent"
        time.sleep(min(max(scheduler.tick(), 0), 0.1))


def run_in_the_future(scheduler: Scheduler) -> None:
    for entry in scheduler.schedule.values():
        entry.last_run_at = datetime.now(UTC) + AHEAD


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "while-it-runs"])
def test_a_last_run_in_the_future_is_ignored(
    open_scheduler: Callable[[], Scheduler], redis_url: str, stored: bool
) -> None:
    """After a last run in the future, the frequent task is sent within its period, the daily ones on their day."""
    scheduler = open_scheduler()
    run_in_the_future(scheduler)
    if stored:
        scheduler.close()
        scheduler = open_scheduler()
    else:
        scheduler.populate_heap()
    tick_until_sent(scheduler, redis_url)
    assert (sent(redis_url, "email"), sent(redis_url, "reports")) == (0, 0)
    now = datetime.now(UTC)
    assert all(entry.last_run_at and entry.last_run_at <= now for entry in scheduler.schedule.values())
    scheduler.close()


def test_a_last_run_in_the_past_is_kept(open_scheduler: Callable[[], Scheduler], redis_url: str) -> None:
    """A task that became due while the scheduler was stopped is sent at once."""
    scheduler = open_scheduler()
    for entry in scheduler.schedule.values():
        entry.last_run_at = datetime.now(UTC) - timedelta(days=2)
    scheduler.close()
    scheduler = open_scheduler()
    tick_until_sent(scheduler, redis_url)
    for _ in range(3):
        scheduler.tick()
    assert (sent(redis_url, "email"), sent(redis_url, "reports")) == (1, 1)
    scheduler.close()

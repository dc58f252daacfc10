"""The tasks of the activity and of the weekly mail, as the worker composes them, on PostgreSQL."""

import email
import email.policy
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from tequipy_auth import CACHE_POLICIES
from tequipy_auth.wiring import build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_observability.metrics import build_registry
from tequipy_observability.wiring import Observability
from tequipy_platform import Delivery
from tequipy_platform.database import build_database, uuid7
from tequipy_worker.app import build_runtime
from tequipy_worker.catalogue import TASKS
from tequipy_worker.settings import WorkerSettings

BY_NAME = {task.name: task for task in TASKS}
DAYS = text("select day, registrations from reporting.daily_activity")
MESSAGES = text("select id, payload from platform.outbox where task = 'reporting.send_weekly_mail'")


async def test_an_administrator_is_counted_and_gets_the_weekly_mail(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's registration is in the activity of today, and its mail is rendered from the real template, once."""
    monkeypatch.chdir(tmp_path)
    variables = {"TEQUIPY_CELERY__BROKER_URL": "redis://127.0.0.1:1/1", "TEQUIPY_MAIL__FOLDER": str(tmp_path / "mail")}
    for name, value in (environment | variables).items():
        monkeypatch.setenv(name, value)
    settings = WorkerSettings()
    registry = build_registry(name="worker", version="1", environment="test")
    runtime = build_runtime(settings, Observability(settings.observability, registry))
    async with AsyncExitStack() as stack:
        for resource in runtime.resources:
            await stack.enter_async_context(resource)
        database = await stack.enter_async_context(build_database(settings.database))
        auth = build_auth(
            settings.auth,
            environment="test",
            public_url=settings.public_url,
            database=database,
            cache=MemoryCacheManager(CACHE_POLICIES),
        )
        await auth.registration.create_admin(email="ada@example.com", password="correct horse battery staple")

        async def run(task: str, delivery: Delivery | None = None, **payload: str) -> None:
            await runtime.handlers[BY_NAME[task]](delivery or Delivery(uuid7(), task), **payload)

        await run("reporting.aggregate_activity")
        await run("reporting.weekly_mail")
        async with database.sessions() as session:
            days = [tuple(row) for row in await session.execute(DAYS)]
            ((message_id, payload),) = (await session.execute(MESSAGES)).all()
        for _ in range(2):
            delivery = Delivery(message_id, "reporting.send_weekly_mail")
            await run("reporting.send_weekly_mail", delivery, **payload)
    assert days == [(datetime.now(UTC).date(), 1)]
    assert registry.get_sample_value("activity_days_counted_total") == 1
    assert (registry.get_sample_value("activity_aggregated_timestamp") or 0) > 0
    (file,) = (tmp_path / "mail").glob("*.eml")
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert (mail["to"], mail["message-id"]) == ("ada@example.com", f"<{message_id}@app.example.com>")
    assert str(mail["subject"]).startswith("Activity from ")

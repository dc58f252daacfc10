"""The conformance suite, run against the app that ships."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_auth.conformance import *  # noqa: F403 -- the cases
from tequipy_auth.conformance import Target
from tequipy_auth.tasks import build_handlers
from tequipy_platform import Delivery, SystemClock
from tequipy_platform.database import Database, DatabaseSettings, build_database
from tequipy_platform.testing import RecordingMailer

from .infrastructure.range_api import BREACHED, knows_the_password, local_server


class ShippedApp(Target):
    """Two processes of the API on one PostgreSQL and one Valkey, and a worker that runs when mails are requested.

    A process starts when a case first connects to it, because few cases need the second one.
    """

    own_addresses = True
    breached_password = BREACHED

    def __init__(self, settings: ApiSettings, database: Database, running: AsyncExitStack) -> None:
        self.passed = timedelta(0)
        self._settings = settings
        self._processes: dict[int, FastAPI] = {}
        self._database = database
        self._running = running
        self._mailer = RecordingMailer()
        self._addresses = count(1)

    @asynccontextmanager
    async def connect(self, process: int = 0) -> AsyncIterator[httpx.AsyncClient]:
        """Open a client with its own client address."""
        app, number = await self._process(process), next(self._addresses)
        transport = httpx.ASGITransport(app, client=(f"198.51.100.{number % 250}", 1000 + number))
        async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
            yield client

    async def _process(self, number: int) -> FastAPI:
        if number not in self._processes:
            app = self._processes[number] = create_app(self._settings)
            await self._running.enter_async_context(app.router.lifespan_context(app))
        return self._processes[number]

    async def mails(self, address: str) -> Sequence[str]:
        """Run the tasks of the outbox, and return the mails to an address."""
        handlers = build_handlers((await self._process(0)).state.auth, self._mailer)
        by_name = {task.name: handler for task, handler in handlers.items()}
        async with self._database.sessions.begin() as session:
            rows = await session.execute(
                text("update platform.outbox set published_at = now() where published_at is null returning *")
            )
        for row in rows.mappings():
            if row["task"] in by_name:
                await by_name[row["task"]](Delivery(row["id"], row["task"]), **row["payload"])
        return [mail.text for mail in self._mailer.mails if mail.to.casefold() == address.casefold()]

    async def pass_time(self, duration: timedelta) -> None:
        """Advance the clock of both processes."""
        self.passed += duration


@pytest.fixture
async def auth_target(
    database_url: str, redis_url: str, redis_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Target]:
    async with (
        local_server(knows_the_password) as range_api,
        build_database(DatabaseSettings.model_validate({"url": database_url})) as database,
        AsyncExitStack() as running,
    ):
        settings = ApiSettings.model_validate(
            {
                "environment": "test",
                "public_url": "https://app.example.com",
                "database": {"url": database_url},
                "cache": {"url": redis_url, "prefix": redis_prefix},
                "storage": {"url": tmp_path.as_uri()},
                "auth": {"bcrypt_cost": 4, "breached_passwords_url": range_api},  # these cases do not test hashing
            }
        )
        target = ShippedApp(settings, database, running)
        monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + target.passed)
        yield target


def test_a_missing_target_is_explained(tmp_path: Path) -> None:
    """The plugin collects every case in another project, and explains how to define the missing target."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tequipy_auth.conformance"]\n')
    (tmp_path / "test_ours.py").write_text("from tequipy_auth.conformance import *\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "missing_token or the_oldest"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert "2 errors" in done.stdout, done.stdout
    assert "define a fixture `auth_target`" in done.stdout

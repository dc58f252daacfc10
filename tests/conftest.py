"""Fixtures: both apps with their own servers, for one module of proofs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tequipy_devstack.keeper import TestRun
from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Deployment
from tequipy_devstack.servers import PostgresServer, ValkeyServer

from .browser import new_page, running_browser
from .local_stack import Stack, local_stack
from .pgbouncer import Pgbouncer

DATABASE = "tequipy"


@pytest.fixture(scope="session")
def deployed(tequipy_run: TestRun) -> PostgresServer:
    """Return a stopped server with migrated tables and one account in the database `tequipy`, made once for the run."""
    folder = tequipy_run.folder / "deployed"
    with tequipy_run.lock("deployed"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix="tequipy-deployed-") as name:
                draft = Path(name)
                with (
                    PostgresServer(draft / "postgres") as postgres,
                    ValkeyServer(draft / "valkey") as redis,
                    MailSink(draft / "mail") as mails,
                ):
                    url = postgres.create_database(DATABASE)
                    deployment = Deployment(draft, database_url=url, redis=redis, mails=mails)
                    deployment.migrate()
                    deployment.create_admin()
                unfinished = folder.with_suffix(".new")  # so that nobody uses a copy that failed
                postgres.copy_to(unfinished)
                unfinished.rename(folder)
    return PostgresServer(folder)


@pytest.fixture(scope="module")
def postgres(deployed: PostgresServer) -> Iterator[PostgresServer]:
    with (
        tempfile.TemporaryDirectory(prefix="tequipy-postgres-") as folder,
        deployed.copy_to(Path(folder)) as server,
    ):
        yield server


@pytest.fixture
def pgbouncer(postgres: PostgresServer, tmp_path: Path) -> Iterator[Pgbouncer]:
    with Pgbouncer(tmp_path / "pgbouncer", postgres) as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[ValkeyServer]:
    with tempfile.TemporaryDirectory(prefix="tequipy-valkey-") as folder, ValkeyServer(Path(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailSink]:
    with MailSink(tmp_path_factory.mktemp("mail")) as sink:
        yield sink


@pytest.fixture(scope="module")
def deployment(
    postgres: PostgresServer, redis: ValkeyServer, mails: MailSink, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """Return a migrated deployment with one account, whose processes tests start themselves."""
    folder = tmp_path_factory.mktemp("deployment")
    return Deployment(folder, database_url=postgres.url(DATABASE), redis=redis, mails=mails)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Yield the local stack of `make dev`, for one module."""
    with local_stack(tmp_path_factory.mktemp("stack"), tmp_path_factory.mktemp("log") / "stack.log") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a Chromium for one module, which has no asynchronous tests."""
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield an empty page with cookies and storage of its own."""
    with new_page(browser) as page:
        yield page

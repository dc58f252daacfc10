"""Fixtures: both apps with their own servers, for one module of proofs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Deployment
from tequipy_devstack.servers import PostgresServer, ValkeyServer


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="tequipy-postgres-") as folder, PostgresServer(Path(folder)) as server:
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
    """Yield a migrated deployment with one account, whose processes tests start themselves."""
    folder = tmp_path_factory.mktemp("deployment")
    deployment = Deployment(folder, database_url=postgres.create_database("tequipy"), redis=redis, mails=mails)
    deployment.migrate()
    deployment.create_admin()
    return deployment

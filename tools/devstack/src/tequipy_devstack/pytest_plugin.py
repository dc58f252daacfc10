"""Fixtures for tests: one PostgreSQL, one Valkey and a mail sink for the whole run, and private servers to break.

Servers start when a test needs them. The processes of a parallel run (xdist) share the servers but use databases of
their own. A shared server refuses to be frozen, killed or restarted; a private one does not.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from tequipy_devstack.keeper import TestRun
from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.ports import free_port as a_free_port
from tequipy_devstack.proving.forked import ForkedCommand, forked_command
from tequipy_devstack.proving.s3 import s3_server as a_s3_server
from tequipy_devstack.servers import PostgresServer, ValkeyServer

_RUN = pytest.StashKey[TestRun]()
_TEMPLATE = "tequipy_template"
# All tables with rows but the version tables of the histories: emptying a table takes longer than looking for a row.
# The timeout reports a test that left a transaction open.
EMPTY_ALL_TABLES = """
DO $$
DECLARE each record; has_rows bool; tables text[] := '{}';
BEGIN
    SET LOCAL lock_timeout = '10s';
    FOR each IN SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'alembic_version'
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || each.name || ')' INTO has_rows;
        IF has_rows THEN tables := tables || each.name; END IF;
    END LOOP;
    SET LOCAL session_replication_role = replica;  -- a superuser's way around triggers that refuse TRUNCATE
    IF tables <> '{}' THEN EXECUTE 'TRUNCATE ' || array_to_string(tables, ', ') || ' RESTART IDENTITY CASCADE'; END IF;
END $$
"""


def pytest_configure(config: pytest.Config) -> None:
    """Start a run, or join the run of the process that started this one."""
    handed_over: dict[str, str] | None = getattr(config, "workerinput", None)
    if handed_over is None:
        config.stash[_RUN] = TestRun.begin()
    else:
        config.stash[_RUN] = TestRun(Path(handed_over["tequipy_run"]), int(handed_over["tequipy_owner"]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: "xdist.workermanage.WorkerController") -> None:  # type: ignore[name-defined] # noqa: F821 -- a hook of xdist, which is optional
    """Pass the run on to a process of a parallel run."""
    run = node.config.stash[_RUN]
    node.workerinput |= {"tequipy_run": str(run.folder), "tequipy_owner": str(run.owner)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tests first: the order of the others stays random, and no long one is left when all others are done."""
    items.sort(key=lambda item: not any(item.iter_markers("xdist_group")) and not any(item.iter_markers("timeout")))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop everything that the run has started."""
    run = config.stash.get(_RUN, None)
    if run is not None and run.owner == os.getpid():
        run.end()


@pytest.fixture(scope="session")
def tequipy_run(pytestconfig: pytest.Config) -> TestRun:
    """Return the state that the processes of this run share."""
    return pytestconfig.stash[_RUN]


@pytest.fixture(scope="session")
def api_command() -> Iterator[ForkedCommand]:
    """Yield `tequipy-api`, imported once for all commands of this process's tests."""
    with forked_command(
        "tequipy-api", "tequipy_api.cli:main", "tequipy_api.histories", "tequipy_api.server"
    ) as command:
        yield command


@pytest.fixture(scope="session")
def worker_command() -> Iterator[ForkedCommand]:
    """Yield `tequipy-worker`, imported once for all commands of this process's tests.

    A `run` that is to do work needs a process of its own, because it counts in files if a variable is set at import.
    """
    with forked_command("tequipy-worker", "tequipy_worker.__main__:main", "tequipy_worker.cli") as command:
        yield command


@pytest.fixture(scope="session")
def worker_number() -> int:
    """Return the number of this process in a parallel run, or 0."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture(scope="session")
def postgres_server(tequipy_run: TestRun) -> PostgresServer:
    """Return the run's PostgreSQL."""
    return PostgresServer(tequipy_run.server_folder("postgres"))


@pytest.fixture(scope="session")
def redis_server(tequipy_run: TestRun, worker_number: int) -> ValkeyServer:
    """Return the run's Valkey; databases 0 to 15 of the object belong to this process."""
    return ValkeyServer(tequipy_run.server_folder("valkey"), first_database=worker_number * ValkeyServer.databases)


@pytest.fixture(scope="session")
def _migrated_database(postgres_server: PostgresServer, tequipy_run: TestRun, worker_number: int) -> str:
    """Return the name of this process's migrated database, copied from a template that is migrated once per run."""
    with tequipy_run.lock("template"):
        if not postgres_server.has_database(_TEMPLATE):
            draft = f"{_TEMPLATE}_draft"
            postgres_server.drop_database(draft)
            _migrate(postgres_server.create_database(draft))
            postgres_server.execute(f"ALTER DATABASE {draft} RENAME TO {_TEMPLATE}")
        name = f"tequipy_{worker_number}"
        postgres_server.create_database(name, template=_TEMPLATE)
    return name


def _migrate(url: str) -> None:
    # Imported at use, because pytest loads this module in every run, even without a database.
    from tequipy_devstack.tables import create_tables  # noqa: PLC0415 -- see above

    # In a thread, because a test may request its database within a running event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(create_tables, url).result()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Yield the address of a server of S3 for this process's tests; `new_bucket` creates a bucket of a test's own."""
    with a_s3_server() as address:
        yield address


@pytest.fixture
def database_url(postgres_server: PostgresServer, _migrated_database: str) -> Iterator[str]:
    """Yield the URL of a migrated database without rows, which is emptied after the test."""
    yield postgres_server.url(_migrated_database)
    postgres_server.execute(EMPTY_ALL_TABLES, database=_migrated_database)


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Yield the URL of a new database without tables, which is dropped after the test."""
    name = f"empty_{uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def redis_url(redis_server: ValkeyServer) -> Iterator[str]:
    """Yield the URL of an empty Redis database of this process; all its 16 databases are emptied after the test."""
    yield redis_server.url()
    redis_server.flush()


@pytest.fixture
def redis_prefix() -> str:
    """Return a key prefix that no other test uses."""
    return f"test-{uuid4().hex}"


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Restore pytest's logging configuration after a test that configures logging as an app does."""
    import structlog  # noqa: PLC0415 -- of tests of observability alone

    logging.captureWarnings(capture=False)  # reset first, because a second call of captureWarnings(True) does nothing
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def mail_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailSink]:
    """Yield this process's SMTP server; all its tests share it, so search for your own address."""
    with MailSink(tmp_path_factory.mktemp("mail")) as sink:
        yield sink


@pytest.fixture(scope="session")
def _new_postgres(tequipy_run: TestRun) -> PostgresServer:
    """Return a stopped server without tables, created once for the run, because initdb takes longer than a copy."""
    folder = tequipy_run.folder / "new-postgres"
    with tequipy_run.lock("new-postgres"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix="tequipy-postgres-") as name:
                draft = PostgresServer(Path(name))
                with draft:
                    pass
                unfinished = folder.with_suffix(".new")  # so that nobody uses a copy that failed
                draft.copy_to(unfinished)
                unfinished.rename(folder)
    return PostgresServer(folder)


@pytest.fixture
def private_postgres(_new_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Yield a PostgreSQL for this test alone, without tables, to be frozen, killed and restarted."""
    with (
        tempfile.TemporaryDirectory(prefix="tequipy-postgres-") as folder,
        _new_postgres.copy_to(Path(folder)) as server,
    ):
        yield server


@pytest.fixture
def private_redis() -> Iterator[ValkeyServer]:
    """Yield a Valkey for this test alone, to be frozen, killed and restarted."""
    with tempfile.TemporaryDirectory(prefix="tequipy-valkey-") as folder, ValkeyServer(Path(folder)) as server:
        yield server
        if server.running:
            server.kill()  # a server that cannot save its data does not end at SIGTERM


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return the function that finds a free TCP port; each call returns another."""
    return a_free_port

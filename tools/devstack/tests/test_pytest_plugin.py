"""The pytest plugin in separate pytest runs: shared servers, separate data, and clean-up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tequipy_devstack.processes import await_end, is_running
from tequipy_devstack.pytest_plugin import EMPTY_ALL_TABLES
from tequipy_devstack.servers import PostgresServer

TESTS = """
import json, os, time
from pathlib import Path
import pytest

HERE = Path(__file__).parent

def number_of(redis_server, database):
    return redis_server.url(database).rpartition("/")[2]

@pytest.mark.parametrize("number", range(4))
def test_tells(number, postgres_server, redis_server, redis_url, empty_database_url, worker_id):
    (HERE / f"{number}.json").write_text(json.dumps({
        "pids": [postgres_server.pid, redis_server.pid],
        "worker": worker_id,
        "redis": redis_url,
        "empty": empty_database_url,
        "folder": str(postgres_server.folder.parent),
    }))
    for database in (0, 7):
        redis_server._run(f"select {number_of(redis_server, database)}\\nset left behind")
    deadline = time.monotonic() + 30
    while len(list(HERE.glob("*.json"))) < 2 and worker_id != "master":
        assert time.monotonic() < deadline
        time.sleep(0.01)

def test_finds_redis_empty(redis_server, redis_url):
    for database in (0, 7):
        assert redis_server._run(f"select {number_of(redis_server, database)}\\ndbsize").split() == ["OK", "0"]
"""
NEEDS_NOTHING = "def test_needs_nothing():\n    pass\n"
WAITS = """
import json, time
from pathlib import Path

def test_waits(postgres_server, redis_server):
    reports = {"pids": [postgres_server.pid, redis_server.pid], "folder": str(postgres_server.folder.parent)}
    Path(__file__).with_name("draft").write_text(json.dumps(reports))
    Path(__file__).with_name("draft").rename(Path(__file__).with_name("report.json"))
    time.sleep(600)
"""

Pytest = Callable[..., "subprocess.Popen[str]"]

MAIN = """
import signal, sys
import pytest
# A shell starts background commands with SIGINT ignored, and all their descendants inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.console_main())
"""


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    def run(tests: str, *options: str) -> "subprocess.Popen[str]":
        (tmp_path / "test_inner.py").write_text(tests)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        # Without other plugins, whose import takes time in every process.
        environment |= {"TMPDIR": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        plugins = ["-p", "xdist", "-p", "tequipy_devstack.pytest_plugin", "-p", "no:cacheprovider"]
        command = [sys.executable, "-c", MAIN, "-q", *plugins, *options, str(tmp_path)]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, process_group=0
        )

    return run


def left_over(folder: Path) -> list[Path]:
    return list(folder.glob("tequipy-tests-*"))


@pytest.mark.parametrize("processes", [0, 2])
def test_a_run_shares_its_servers_and_no_data(run_pytest: Pytest, tmp_path: Path, processes: int) -> None:
    """All processes of a run share the two servers with separate databases; afterwards nothing is left."""
    run = run_pytest(TESTS, "-n", str(processes), "--dist", "load")
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 0, output
    reports = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert len(reports) == 4
    assert len({tuple(report["pids"]) for report in reports}) == 1
    assert len({report["empty"] for report in reports}) == 4
    workers = {report["worker"] for report in reports}
    assert len(workers) == max(processes, 1)
    assert len({report["redis"] for report in reports}) == len(workers)
    assert not any(psutil.pid_exists(pid) and is_running(psutil.Process(pid)) for pid in reports[0]["pids"])
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("options", [[], ["--collect-only"]], ids=["run", "collect-only"])
def test_a_run_without_server_fixtures_starts_none(run_pytest: Pytest, tmp_path: Path, options: list[str]) -> None:
    """A run without server fixtures, and any collection, creates no folder and starts no server."""
    run = run_pytest(TESTS if options else NEEDS_NOTHING, *options)
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 0, output
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("ending", ["SIGINT", "SIGKILL"])
def test_the_servers_end_however_the_run_ends(run_pytest: Pytest, tmp_path: Path, ending: str) -> None:
    """Ctrl-C and `kill -9` of a parallel run's first process both end its servers and remove their folder."""
    run = run_pytest(WAITS, "-n", "1")
    file = tmp_path / "report.json"
    deadline = time.monotonic() + 60
    while not file.exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    servers = [psutil.Process(pid) for pid in json.loads(file.read_text())["pids"]]
    inner = psutil.Process(run.pid).children(recursive=True)
    if ending == "SIGINT":
        os.killpg(run.pid, signal.SIGINT)  # like a terminal, to every process in the foreground
    else:
        run.kill()
    run.communicate(timeout=60)
    assert await_end(servers, timeout=30) == []
    while left_over(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in inner:  # xdist's worker processes may still run their test
        if is_running(process):
            process.kill()


def test_a_migrated_database_holds_every_package(database_url: str, postgres_server: PostgresServer) -> None:
    """The tables of every package are in the database of this process."""
    name = database_url.rpartition("/")[2]
    schemas = postgres_server.execute("SELECT DISTINCT schemaname FROM pg_tables", name).split()
    assert {"platform", "auth"} <= set(schemas)


def test_emptying_keeps_the_tables_and_the_versions(empty_database_url: str, postgres_server: PostgresServer) -> None:
    """After a test all rows are deleted and sequences restarted, and the version tables are kept."""
    name = empty_database_url.rpartition("/")[2]
    for sql in (
        "CREATE SCHEMA auth",
        "CREATE TABLE auth.users (id serial PRIMARY KEY)",
        "CREATE TABLE auth.sessions (user_id int REFERENCES auth.users)",
        "CREATE TABLE auth.alembic_version AS SELECT '0001' AS version_num",
        "INSERT INTO auth.users DEFAULT VALUES",
        "INSERT INTO auth.sessions VALUES (1)",
        EMPTY_ALL_TABLES,
        "INSERT INTO auth.users DEFAULT VALUES",
    ):
        postgres_server.execute(sql, name)
    counts = "SELECT (SELECT max(id) FROM auth.users), (SELECT count(*) FROM auth.sessions), version_num"
    assert postgres_server.execute(f"{counts} FROM auth.alembic_version", name) == "1|0|0001\n"

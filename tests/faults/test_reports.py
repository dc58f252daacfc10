"""Reports while their worker is killed, their storage is away or full, and their callers cancel: real processes."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tequipy_devstack.processes import family
from tequipy_devstack.proving import Api, Deployment, Program, eventually
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD, credentials
from tequipy_devstack.servers import PostgresServer

# One API and one table of events serve all these tests, so they must run in one pytest process.
pytestmark = [pytest.mark.xdist_group("reports"), pytest.mark.timeout(900)]

EVENTS = 200_000
"""Enough for a report of several seconds on a fast machine: progress is recorded once a second."""
BEGUN = 0.2
"""The progress at which a fault strikes: a fast machine still has most of the report before it."""
BODY = {"kind": "user_activity", "from": "2026-01-01", "to": "2026-01-31", "format": "csv"}
OTHER = "other@example.com"
# A report of all events fits the limits on a starved machine too.
LIMITS = {
    "TEQUIPY_CELERY__SOFT_TIME_LIMIT": "90",
    "TEQUIPY_CELERY__TIME_LIMIT": "93",
    "TEQUIPY_CELERY__VISIBILITY_TIMEOUT": "95",
}
INSERT = f"""
insert into auth.audit_events (id, at, action, outcome, ip, user_agent, metadata)
select gen_random_uuid(), timestamptz '2026-01-01 00:00Z' + n * interval '30 days' / {EVENTS}, 'login_ok', 'success',
  '192.0.2.1', 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36', '{{}}' from generate_series(0, {EVENTS - 1}) n
"""  # noqa: S608 -- a number of ours


class Caller:
    """An administrator who requests reports."""

    def __init__(self, client: httpx.Client, email: str) -> None:
        self._client = client
        body = dict(credentials()) | {"email": email}
        answer = client.post("/auth/login", json=body).raise_for_status()
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def ask(self, **changes: str) -> str:
        answer = self._client.post("/reports", json=BODY | changes)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def report(self, report_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self._client.get(f"/reports/{report_id}").raise_for_status().json()
        return body

    def status(self, report_id: str) -> str:
        return str(self.report(report_id)["status"])

    def content(self, report_id: str) -> bytes:
        return self._client.get(f"/reports/{report_id}/content").raise_for_status().content

    def delete(self, report_id: str) -> None:
        assert self._client.delete(f"/reports/{report_id}").status_code == 204

    def await_progress(self, report_id: str, least: float) -> float:
        """Wait until the report has this progress, and return its progress."""
        progress = 0.0

        def has_it() -> bool:
            nonlocal progress
            report = self.report(report_id)
            assert report["status"] in {"queued", "running"}, report
            progress = report["progress"]
            return bool(report["status"] == "running" and progress >= least)

        eventually(f"progress {least}", has_it, within=240)
        return progress

    def await_status(self, report_id: str, status: str, *, within: float = 240) -> float:
        """Wait until the report has this status, and return the seconds that this took."""
        began = time.monotonic()
        eventually(f"the report is {status}", lambda: self.status(report_id) == status, within=within)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def api(deployment: Deployment, postgres: PostgresServer) -> Iterator[Api]:
    postgres.execute(INSERT, "tequipy")
    deployment.command("create-admin", "--email", OTHER, text=PASSWORD)
    with deployment.api() as api, deployment.relay(**LIMITS):
        yield api


def client_of(api: Api) -> httpx.Client:
    return httpx.Client(base_url=f"{api.url}/api/v1", timeout=30)


@pytest.fixture(scope="module")
def caller(api: Api) -> Iterator[Caller]:
    with client_of(api) as client:
        yield Caller(client, ADMIN)


@pytest.fixture(scope="module")
def other(api: Api) -> Iterator[Caller]:
    with client_of(api) as client:
        yield Caller(client, OTHER)


@pytest.fixture(autouse=True)
def _no_reports_before(postgres: PostgresServer, deployment: Deployment) -> None:
    """Begin each test without reports and objects."""
    postgres.execute("delete from reporting.reports", "tequipy")
    for file in [*objects(deployment), *unfinished(deployment)]:
        file.unlink()


def worker_of(deployment: Deployment, **settings: str) -> Program:
    return deployment.worker(TEQUIPY_WORKER__CONCURRENCY="1", **LIMITS, **settings)


def objects(deployment: Deployment) -> list[Path]:
    """Return the files of reports in the storage."""
    return list(deployment.storage.glob("reports/*/*"))


def unfinished(deployment: Deployment) -> list[Path]:
    """Return the files of uploads that have not ended."""
    return list(deployment.storage.glob(".tequipy/uploads/*"))


def await_end_of(postgres: PostgresServer, task: str) -> None:
    """Wait until no message of this task is unsettled."""
    query = f"select count(*) from platform.outbox where task = '{task}' and settled_at is null"  # noqa: S608
    eventually(f"{task} has run", lambda: postgres.execute(query, "tequipy").strip() == "0", within=240)


def kill_child(worker: Program) -> None:
    """Kill the child process in which the task runs."""
    child = max(psutil.Process(worker.pid).children(), key=lambda each: sum(each.cpu_times()[:2]))
    child.kill()


def kill_worker(worker: Program) -> None:
    """Kill the whole worker, and start it again."""
    worker.kill()
    worker.start()


def test_a_report_is_cancelled_half_way(deployment: Deployment, caller: Caller, postgres: PostgresServer) -> None:
    """A cancel in the middle is answered at once, ends the attempt soon and leaves no object; the next one runs."""
    with worker_of(deployment):
        report, following = caller.ask(), caller.ask(to="2026-01-02")
        progress = caller.await_progress(report, BEGUN)
        began = time.monotonic()
        caller.delete(report)
        assert caller.status(report) == "cancelled"
        answered = time.monotonic() - began
        await_end_of(postgres, "reporting.remove_files")
        await_end_of(postgres, "reporting.generate_report")
        seconds = time.monotonic() - began
        assert caller.status(following) == "done"
        caller.delete(following)
        await_end_of(postgres, "reporting.remove_files")
    print(
        f"\ncancelled at {progress:.0%}: answered after {answered:.2f} s, the next report done {seconds:.1f} s later; "
        f"{len(objects(deployment))} objects, {len(unfinished(deployment))} unfinished uploads"
    )
    assert (objects(deployment), unfinished(deployment)) == ([], [])


@pytest.mark.prove
@pytest.mark.parametrize("kill", [pytest.param(kill_child, marks=pytest.mark.quick), kill_worker])
def test_a_killed_report_is_done_by_another_attempt(
    deployment: Deployment, caller: Caller, postgres: PostgresServer, kill: Callable[[Program], None]
) -> None:
    """After kill -9 in the middle the message is delivered again, and one object with all events is stored."""
    with worker_of(deployment) as worker:
        report = caller.ask()
        progress = caller.await_progress(report, BEGUN)
        kill(worker)
        seconds = caller.await_status(report, "done")
        lines = caller.content(report).count(b"\r\n")
        stored = objects(deployment)
        caller.delete(report)
        await_end_of(postgres, "reporting.remove_files")
    print(
        f"\n{kill.__name__} at {progress:.0%}: done after {seconds:.1f} s, {lines - 1} of {EVENTS} events, "
        f"{len(stored)} object; after its deletion {len(objects(deployment))} objects, "
        f"{len(unfinished(deployment))} unfinished uploads"
    )
    assert (lines, len(stored)) == (EVENTS + 1, 1)
    assert objects(deployment) == []


@contextmanager
def away(deployment: Deployment, _: Program) -> Iterator[None]:
    """A storage whose folder is a file."""
    folder = deployment.storage.rename(deployment.storage.with_name("elsewhere"))
    deployment.storage.touch()
    yield
    deployment.storage.unlink()
    folder.rename(deployment.storage)


@contextmanager
def full(_: Deployment, worker: Program) -> Iterator[None]:
    """A storage that accepts files of 4 MiB at most."""
    for process in family(worker.pid):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4 * 1024**2, resource.RLIM_INFINITY))
    yield
    for process in family(worker.pid):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.parametrize("fault", [away, full])
def test_a_report_waits_for_its_storage(
    deployment: Deployment, caller: Caller, postgres: PostgresServer, fault: Callable[..., Any]
) -> None:
    """While the storage is away or full attempts fail and leave nothing; when it is back, the report is done."""
    deployment.storage.mkdir(exist_ok=True)
    with worker_of(deployment) as worker:
        warm_up = caller.ask(to="2026-01-01")
        caller.await_status(warm_up, "done")
        with fault(deployment, worker):
            report = caller.ask()
            query = "select count(*) from platform.outbox where failed_attempts > 1 and settled_at is null"
            eventually(
                "two attempts have failed", lambda: postgres.execute(query, "tequipy").strip() != "0", within=240
            )
            status = caller.status(report)
            assert status in {"queued", "running"}
            left = [] if fault is away else [*unfinished(deployment)]
        seconds = caller.await_status(report, "done")
    print(
        f"\nstorage {fault.__name__}: status {status} after two attempts, done {seconds:.1f} s after it was back, "
        f"{len(objects(deployment))} objects of 2 reports"
    )
    assert len(left) <= 1, "the attempt that runs"
    assert len(objects(deployment)) == 2
    assert unfinished(deployment) == []


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.parametrize("fault", [away, full])
def test_a_report_gives_up_its_storage(
    deployment: Deployment, caller: Caller, postgres: PostgresServer, fault: Callable[..., Any]
) -> None:
    """A report fails with `storage_unavailable` when its time is over, leaves nothing, and the next one is done."""
    deployment.storage.mkdir(exist_ok=True)
    with worker_of(deployment, TEQUIPY_REPORTING__POLICY__GIVE_UP_AFTER="8") as worker:
        warm_up = caller.ask(to="2026-01-01")
        caller.await_status(warm_up, "done")
        with fault(deployment, worker):
            report, following = caller.ask(), caller.ask(to="2026-01-02")
            seconds = caller.await_status(report, "failed")
        caller.await_status(following, "done")
        code = caller.report(report)["error_code"]
        await_end_of(postgres, "reporting.generate_report")
    print(
        f"\nstorage {fault.__name__} for good: {code} after {seconds:.1f} s (give up after 8 s); "
        f"{len(objects(deployment))} objects of the 2 other reports"
    )
    assert code == "storage_unavailable"
    assert len(objects(deployment)) == 2
    assert unfinished(deployment) == []


@pytest.mark.prove
@pytest.mark.quick
def test_many_reports_of_one_account_do_not_hold_up_another(
    deployment: Deployment, caller: Caller, other: Caller, postgres: PostgresServer
) -> None:
    """One report beside 20 of another account waits for at most two of them."""
    reports = [caller.ask(to="2026-01-05") for _ in range(20)]
    theirs = other.ask(to="2026-01-05")
    began = time.monotonic()
    with worker_of(deployment):
        other.await_status(theirs, "done")
        waited = time.monotonic() - began
        await_end_of(postgres, "reporting.generate_report")
        whole = time.monotonic() - began
    ended = other.report(theirs)["finished_at"]
    before = [report for report in reports if caller.report(report)["finished_at"] < ended]
    print(
        f"\n20 reports beside one of another account: it is done after {waited:.1f} s, behind {len(before)} of them; "
        f"all 21 after {whole:.1f} s"
    )
    assert {caller.status(report) for report in reports} == {"done"}
    assert len(before) <= 2

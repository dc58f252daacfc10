"""Reports about a million audit events, by the shipped worker: time, memory and size."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pypdf import PdfReader

from tequipy_devstack.processes import family
from tequipy_devstack.proving import Api, Deployment, Program, eventually
from tequipy_devstack.proving.s3 import new_bucket
from tequipy_devstack.proving.traffic import credentials
from tequipy_devstack.servers import PostgresServer

pytestmark = [pytest.mark.prove, pytest.mark.xdist_group("reports"), pytest.mark.timeout(1200)]

EVENTS = 1_000_000
DAYS = 364
MOST_MEBIBYTES = 256
FILL = """
insert into auth.audit_events (id, at, actor_id, subject_id, session_id, action, outcome, reason, ip, user_agent,
    correlation_id, metadata)
select gen_random_uuid(), now() - make_interval(secs => n * 31), gen_random_uuid(),
    gen_random_uuid(), gen_random_uuid(), case when n % 10 = 0 then 'login_failed' else 'login_ok' end,
    case when n % 10 = 0 then 'failure' else 'success' end, null, '192.0.2.' || n % 256,
    'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36',
    md5(n::text), '{"device": "known"}'
from generate_series(1, 1000000) as n;
analyze auth.audit_events
"""


def storage_of(store: str, deployment: Deployment, request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Return the variables of a store: a folder, or a bucket of a server of S3."""
    if store == "folder":
        return {"TEQUIPY_STORAGE__URL": deployment.storage.as_uri()}
    server: str = request.getfixturevalue("s3_server")
    return {
        "TEQUIPY_STORAGE__URL": f"s3://{new_bucket(server)}",
        "TEQUIPY_STORAGE__ENDPOINT": server,
        "TEQUIPY_STORAGE__ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "TEQUIPY_STORAGE__SECRET_ACCESS_KEY": "secret",
        # moto joins and copies an object in memory before it answers.
        "TEQUIPY_STORAGE__TIMEOUT": "60",
    }


@pytest.fixture(scope="module")
def filled(postgres: PostgresServer, deployment: Deployment) -> None:
    """Fill the audit, and count its days, as the scheduler's tasks would."""
    postgres.execute(FILL, database="tequipy")
    program = Path(sys.executable).with_name("tequipy-worker")
    began = time.monotonic()
    command = [str(program), "rebuild-activity", "--since", str(first_day())]
    subprocess.run(command, cwd=deployment.folder, env=deployment.environment, check=True, capture_output=True)
    print(f"\n{DAYS} days were counted in {time.monotonic() - began:.1f} s")


@pytest.fixture(params=["folder", "s3"])
def running(request: pytest.FixtureRequest, deployment: Deployment) -> Iterator[tuple[Api, Program]]:
    """Yield the API and a worker of reports, with the limits of time that are the default."""
    request.getfixturevalue("filled")
    variables = {
        **storage_of(request.param, deployment, request),
        "TEQUIPY_CELERY__SOFT_TIME_LIMIT": "270",
        "TEQUIPY_CELERY__TIME_LIMIT": "300",
        "TEQUIPY_CELERY__VISIBILITY_TIMEOUT": "600",
        "TEQUIPY_WORKER__CONCURRENCY": "1",
    }
    with deployment.relay(**variables), deployment.worker(**variables) as worker, deployment.api(**variables) as api:
        yield api, worker


def first_day() -> date:
    return datetime.now(UTC).date() - timedelta(days=DAYS)


def peak_mebibytes(pid: int) -> float:
    """Return the largest resident memory of a process so far."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.mark.parametrize("form", ["csv", "pdf"])
def test_a_report_over_a_million_events(
    running: tuple[Api, Program], form: str, request: pytest.FixtureRequest
) -> None:
    """It is done within the task's time limit, no process of the worker needs 256 MiB, and the file is complete."""
    api, worker = running
    login = httpx.post(f"{api.url}/api/v1/auth/login", json=dict(credentials())).raise_for_status().json()
    bearer = {"Authorization": f"Bearer {login['access_token']}"}
    with httpx.Client(base_url=f"{api.url}/api/v1", headers=bearer, timeout=30) as client:
        figures = measure(client, worker, form)
    print(f"\n{request.node.name}: {figures}")


def measure(client: httpx.Client, worker: Program, form: str) -> str:
    """Request a report, wait for its end, check it, and describe what it took."""
    period = {"from": str(first_day()), "to": str(datetime.now(UTC).date())}
    before = sum(sum(process.cpu_times()[:2]) for process in family(worker.pid))
    began = time.monotonic()
    report = client.post("/reports", json={"kind": "user_activity", "format": form, **period}).raise_for_status().json()
    progress: list[float] = []

    def ended() -> bool:
        time.sleep(0.2)  # polling takes processor time from the worker
        state = client.get(f"/reports/{report['id']}").raise_for_status().json()
        progress.append(state["progress"])
        report.update(state)
        return state["status"] not in {"queued", "running"}

    eventually("the report has ended", ended, within=280)
    seconds = time.monotonic() - began
    assert (report["status"], report.get("error_code")) == ("done", None)
    processes = family(worker.pid)
    peaks = [peak_mebibytes(process.pid) for process in processes]
    processor = sum(sum(process.cpu_times()[:2]) for process in processes) - before
    size, digest, lines = 0, hashlib.sha256(), 0
    with client.stream("GET", f"/reports/{report['id']}/content") as answer:
        for chunk in answer.raise_for_status().iter_bytes():
            size += len(chunk)
            digest.update(chunk)
            lines += chunk.count(b"\n")
    steps = len(set(progress))
    assert size == report["size_bytes"]
    assert digest.hexdigest() in answer.headers["ETag"]
    assert progress == sorted(progress)
    if form == "pdf":
        page = PdfReader(BytesIO(client.get(f"/reports/{report['id']}/content").content)).pages[0].extract_text()
        assert f"{EVENTS * 9 // 10:,}" in page
        assert f"{EVENTS // 10:,}" in page
    else:
        assert lines > EVENTS
    assert max(peaks) < MOST_MEBIBYTES
    took = f"{seconds:.1f} s ({processor:.1f} s of the worker's processor time)"
    return f"{took}, {size:,} bytes, a process of the worker at most {max(peaks):.0f} MiB, {steps} steps of progress"

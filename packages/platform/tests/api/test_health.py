"""Health and readiness."""

import asyncio
import logging
import time

import httpx
import pytest
from fastapi import FastAPI

from tequipy_platform import HealthCheck, RefusesWrites
from tequipy_platform.api import health, wire_errors, wire_health


async def well() -> None:
    pass


async def broken() -> None:
    raise OSError("connect to 10.0.0.1 with password hunter2 failed")


async def refusing() -> None:
    raise RefusesWrites("MISCONF saves to /var/lib/redis fail")


async def hung() -> None:
    while True:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(1)  # as a driver that says goodbye to a server that does not answer
            raise


def client(*checks: HealthCheck) -> httpx.AsyncClient:
    app = FastAPI()
    wire_health(app, checks)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_health_says_that_the_process_runs() -> None:
    """Health asks nothing of anybody."""
    async with client(HealthCheck("database", broken)) as http:
        response = await http.get("/api/v1/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_what_refuses_writes_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Its status is `refusing`; why stands in the log alone, once."""
    async with client(HealthCheck("redis", refusing, required=False)) as http:
        response = await http.get("/api/v1/readiness")
        await http.get("/api/v1/readiness")
    assert response.json()["checks"]["redis"]["status"] == "refusing"
    assert "MISCONF" not in response.text
    (line,) = [record.getMessage() for record in caplog.records]
    assert "refusing" in line
    assert "MISCONF" in line


@pytest.mark.parametrize(
    ("checks", "code", "status"),
    [
        ([], 200, "ready"),
        ([HealthCheck("a", well), HealthCheck("b", well, required=False)], 200, "ready"),
        ([HealthCheck("a", well), HealthCheck("b", broken, required=False)], 200, "degraded"),
        ([HealthCheck("a", broken), HealthCheck("b", well, required=False)], 503, "not_ready"),
        ([HealthCheck("a", broken), HealthCheck("b", broken, required=False)], 503, "not_ready"),
        ([HealthCheck("a", well), HealthCheck("b", refusing, required=False)], 200, "degraded"),
        ([HealthCheck("a", refusing)], 503, "not_ready"),
    ],
)
async def test_readiness_follows_the_checks(checks: list[HealthCheck], code: int, status: str) -> None:
    """A required check that is down is 503, another one only degrades."""
    async with client(*checks) as http:
        response = await http.get("/api/v1/readiness")
    assert (response.status_code, response.json()["status"]) == (code, status)


async def test_a_check_that_is_well_may_go_unnamed() -> None:
    """One that is reported only when it is down makes the process not ready then, and is in no other report."""
    for check, code, named in ((well, 200, ["a"]), (broken, 503, ["a", "keys"])):
        async with client(HealthCheck("a", well), HealthCheck("keys", check, only_when_down=True)) as http:
            response = await http.get("/api/v1/readiness")
        assert (response.status_code, list(response.json()["checks"])) == (code, named)


async def test_a_draining_process_is_not_ready_and_says_goodbye_in_every_answer() -> None:
    """From `drain` on: 503 without asking any check, and `Connection: close`, on answers of other middleware too."""
    app = FastAPI()
    wire_errors(app)
    wire_health(app, [HealthCheck("a", hung)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        assert "connection" not in (await http.get("/api/v1/health")).headers
        app.state.readiness.drain()
        readiness = await http.get("/api/v1/readiness")
        others = [await http.get("/api/v1/health"), await http.post("/", content=b" " * 2_000_000)]
    assert (readiness.status_code, readiness.json()) == (503, {"status": "not_ready", "checks": {}})
    assert [answer.status_code for answer in others] == [200, 413]
    assert {answer.headers["connection"] for answer in [readiness, *others]} == {"close"}


async def test_readiness_tells_no_addresses_and_the_log_tells_once(caplog: pytest.LogCaptureFixture) -> None:
    """Why a check failed stands in the log, once an outage, and not in the answer."""
    readiness = health.Readiness([HealthCheck("database", broken)])
    with caplog.at_level(logging.WARNING):
        first = await readiness.report()
        readiness._flown_at = 0.0
        second = await readiness.report()
    assert first is not second
    assert "10.0.0.1" not in first.model_dump_json()
    assert first.checks["database"].status == "down"
    assert len(caplog.records) == 1


async def test_checks_run_side_by_side_and_a_hung_one_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hung checks cost one time limit together, and their unwillingness to be cancelled costs nothing."""
    monkeypatch.setattr(health, "_CHECK_SECONDS", 0.2)
    readiness = health.Readiness([HealthCheck(name, hung) for name in "abc"] + [HealthCheck("d", well)])
    started = time.monotonic()
    report = await readiness.report()
    assert time.monotonic() - started < 0.9  # less than the goodbye of one
    assert {name: check.status for name, check in report.checks.items()} == dict.fromkeys("abc", "down") | {"d": "up"}
    await asyncio.gather(*readiness._abandoned, return_exceptions=True)
    assert not readiness._abandoned


async def test_many_askers_share_one_run() -> None:
    """Fifty probes at once and one soon after cost one check; the answer grows stale after a second."""
    runs = 0

    async def count() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)

    readiness = health.Readiness([HealthCheck("a", count)])
    impatient = asyncio.ensure_future(readiness.report())
    while not runs:
        await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(*(readiness.report() for _ in range(50)))
    await readiness.report()
    assert runs == 1
    readiness._flown_at -= 1
    await readiness.report()
    assert runs == 2

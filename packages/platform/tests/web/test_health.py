"""Health and readiness routes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware

from tequipy_observability.wiring import Observability, ObservabilitySettings
from tequipy_platform import HealthCheck, RefusesWrites
from tequipy_platform.web import (
    CatchErrors,
    CloseConnections,
    LimitBodies,
    Pipeline,
    Readiness,
    health,
    wire_errors,
    wire_health,
)


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
            await asyncio.sleep(1)  # as a driver that waits for a dead server when it is cancelled
            raise


def client(*checks: HealthCheck) -> httpx.AsyncClient:
    readiness = Readiness(checks)
    app = FastAPI(middleware=[Middleware(Pipeline, [CloseConnections(readiness)])])
    wire_health(app, readiness)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def test_the_middleware_must_be_listed() -> None:
    """Wiring an app without the middleware, whose connections would not be closed, is refused with its name."""
    with pytest.raises(RuntimeError, match="CloseConnections"):
        wire_health(FastAPI(), Readiness([]))


async def test_health_runs_no_check() -> None:
    """The health route runs no check."""
    async with client(HealthCheck("database", broken)) as http:
        response = await http.get("/api/v1/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_a_service_that_refuses_writes_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A check that raises `RefusesWrites` has the status `refusing`; the reason is logged once and not in the body."""
    async with client(HealthCheck("redis", refusing, required=False)) as http:
        response = await http.get("/api/v1/readiness")
        await http.get("/api/v1/readiness")
    assert response.json()["checks"]["redis"]["status"] == "refusing"
    assert "MISCONF" not in response.text
    (record,) = caplog.records
    assert record.getMessage() == "readiness_check_failed"
    assert vars(record)["status"] == "refusing"
    assert "MISCONF" in vars(record)["error"]


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
    """A failed required check gives 503, any other only `degraded`."""
    async with client(*checks) as http:
        response = await http.get("/api/v1/readiness")
    assert (response.status_code, response.json()["status"]) == (code, status)


async def test_a_check_can_be_shown_only_when_it_fails() -> None:
    """A check with `only_when_down` makes the process not ready when it fails, and is otherwise not in the report."""
    for check, code, named in ((well, 200, ["a"]), (broken, 503, ["a", "keys"])):
        async with client(HealthCheck("a", well), HealthCheck("keys", check, only_when_down=True)) as http:
            response = await http.get("/api/v1/readiness")
        assert (response.status_code, list(response.json()["checks"])) == (code, named)


async def test_a_draining_process_is_not_ready_and_closes_connections() -> None:
    """While draining, readiness is 503 without running checks, and all responses carry `Connection: close`."""
    readiness = Readiness([HealthCheck("a", hung)])
    app = FastAPI(middleware=[Middleware(Pipeline, [CloseConnections(readiness), LimitBodies(), CatchErrors()])])
    wire_errors(app)
    wire_health(app, readiness)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        assert "connection" not in (await http.get("/api/v1/health")).headers
        readiness.drain()
        report = await http.get("/api/v1/readiness")
        others = [await http.get("/api/v1/health"), await http.post("/", content=b" " * 2_000_000)]
    assert (report.status_code, report.json()) == (503, {"status": "not_ready", "checks": {}})
    assert [answer.status_code for answer in others] == [200, 413]
    assert {answer.headers["connection"] for answer in [report, *others]} == {"close"}


async def test_the_outcome_of_the_checks_is_a_metric() -> None:
    """`service_up` is 0 before the first check, while a required check fails, and while the process drains."""
    registry = CollectorRegistry()
    checks: dict[str, Callable[[], Awaitable[None]]] = {"database": broken, "redis": well}
    observability = Observability(ObservabilitySettings(), registry, service="shop")

    async def outcome(**changed: Callable[[], Awaitable[None]]) -> float | None:
        checks.update(changed)
        described = [HealthCheck(name, check, required=name == "database") for name, check in checks.items()]
        await Readiness(described, report_up=observability.report_up).report()
        return registry.get_sample_value("service_up", {"service": "shop"})

    assert registry.get_sample_value("service_up", {"service": "shop"}) == 0
    assert await outcome() == 0
    assert await outcome(database=well) == 1
    assert await outcome(redis=broken) == 1
    Readiness([], report_up=observability.report_up).drain()
    assert registry.get_sample_value("service_up", {"service": "shop"}) == 0


async def test_the_cause_of_a_failed_check_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The cause of a failed check is logged once per outage and not shown in the response."""
    readiness = Readiness([HealthCheck("database", broken)])
    with caplog.at_level(logging.WARNING):
        first = await readiness.report()
        readiness._finished_at = 0.0
        second = await readiness.report()
    assert first is not second
    assert "10.0.0.1" not in first.model_dump_json()
    assert first.checks["database"].status == "down"
    assert len(caplog.records) == 1


async def test_checks_run_concurrently_and_a_hung_one_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hung checks take one timeout together, and the time they need to be cancelled is not waited for."""
    monkeypatch.setattr(health, "_CHECK_SECONDS", 0.2)
    readiness = Readiness([HealthCheck(name, hung) for name in "abc"] + [HealthCheck("d", well)])
    started = time.monotonic()
    report = await readiness.report()
    assert time.monotonic() - started < 0.9  # less than one hung check needs to be cancelled
    assert {name: check.status for name, check in report.checks.items()} == dict.fromkeys("abc", "down") | {"d": "up"}
    await asyncio.gather(*readiness._abandoned, return_exceptions=True)
    assert not readiness._abandoned


async def test_concurrent_requests_share_one_run_of_the_checks() -> None:
    """Fifty concurrent requests and one soon after run a check once; after a second it runs again."""
    runs = 0

    async def count() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)

    readiness = Readiness([HealthCheck("a", count)])
    impatient = asyncio.ensure_future(readiness.report())
    while not runs:
        await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(*(readiness.report() for _ in range(50)))
    await readiness.report()
    assert runs == 1
    readiness._finished_at -= 1
    await readiness.report()
    assert runs == 2

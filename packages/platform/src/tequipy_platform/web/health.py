"""Health and readiness routes: does the process run, do its dependencies work, is it shutting down."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Final, Literal

from fastapi import Depends, FastAPI, Request, Response, status
from pydantic import BaseModel, Field

from tequipy_observability.api import Exchange, Head, Stage, require_stages, wire_polled_routes
from tequipy_platform._health import HealthCheck, RefusesWrites

_CHECK_SECONDS: Final = 2.0
_CACHE_SECONDS: Final = 1.0
_CLOSE: Final = (b"connection", b"close")

logger = logging.getLogger(__name__)


class Health(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"


class CheckStatus(StrEnum):
    """The state of a dependency; `refusing`: it answers but refuses writes."""

    UP = "up"
    REFUSING = "refusing"
    DOWN = "down"


class ReadinessStatus(StrEnum):
    """`not_ready`: a required check is not up, or the process is ending (no checks then); `degraded`: another one."""

    READY = "ready"
    DEGRADED = "degraded"
    NOT_READY = "not_ready"


class CheckReport(BaseModel):
    """The result of one check. Errors are in the log."""

    status: CheckStatus
    duration_ms: float = Field(examples=[1.2])


class ReadinessReport(BaseModel):
    """Whether the process can serve, and the result of each check."""

    status: ReadinessStatus
    checks: dict[str, CheckReport] = Field(examples=[{"database": {"status": "up", "duration_ms": 1.2}}])


class Readiness:
    """Runs the checks concurrently, at most once a second whatever the number of requests.

    Each outcome is also passed to `report_up`, so the metric `service_up` is as old as the latest request.
    """

    def __init__(self, checks: Sequence[HealthCheck], *, report_up: Callable[[bool], None] = lambda _: None) -> None:
        self._checks = checks
        self._report_up = report_up
        self._run_in_progress: asyncio.Task[ReadinessReport] | None = None
        self._finished_at = 0.0
        self._abandoned: set[asyncio.Task[object]] = set()
        self._failing: dict[str, str] = {}
        self.draining = False

    def drain(self) -> None:
        """Report "not ready" from now on, whatever the checks say, because the process is about to end."""
        self.draining = True
        self._report_up(False)

    async def report(self) -> ReadinessReport:
        """Return a report that is at most a second old; concurrent callers share one run of the checks."""
        if self.draining:
            return ReadinessReport(status=ReadinessStatus.NOT_READY, checks={})
        run = self._run_in_progress
        if run is None or (run.done() and time.monotonic() - self._finished_at >= _CACHE_SECONDS):
            run = self._run_in_progress = asyncio.create_task(self._run())
        # Shielded, so that a cancelled caller does not cancel the run that others wait for.
        return await asyncio.shield(run)

    async def _run(self) -> ReadinessReport:
        started = time.monotonic()
        tasks = {check.name: asyncio.create_task(_timed(check)) for check in self._checks}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=_CHECK_SECONDS)
        reports = {name: self._conclude(name, task, started) for name, task in tasks.items()}
        self._finished_at = time.monotonic()
        down = {check.required for check in self._checks if reports[check.name].status is not CheckStatus.UP}
        outcome = ReadinessStatus.NOT_READY if True in down else ReadinessStatus.DEGRADED
        hidden = {
            check.name
            for check in self._checks
            if check.only_when_down and reports[check.name].status is CheckStatus.UP
        }
        shown = {name: report for name, report in reports.items() if name not in hidden}
        self._report_up(True not in down and not self.draining)
        return ReadinessReport(status=outcome if down else ReadinessStatus.READY, checks=shown)

    def _conclude(self, name: str, task: asyncio.Task[float], started: float) -> CheckReport:
        error = self._failure_of(task)
        if error is None:
            self._failing.pop(name, None)
            return CheckReport(status=CheckStatus.UP, duration_ms=round(task.result() * 1000, 1))
        status = CheckStatus.REFUSING if isinstance(error, RefusesWrites) else CheckStatus.DOWN
        if self._failing.get(name) != status:  # logged once per outage, not once per probe
            logger.warning("readiness_check_failed", extra={"check": name, "status": status, "error": repr(error)})
        self._failing[name] = status
        return CheckReport(status=status, duration_ms=round((time.monotonic() - started) * 1000, 1))

    def _failure_of(self, task: asyncio.Task[float]) -> BaseException | None:
        if not task.done():
            # Cancelled but not awaited: a driver that hangs may take arbitrarily long to react.
            task.cancel()
            self._abandoned.add(task)
            task.add_done_callback(self._forget)
            return TimeoutError(f"no answer within {_CHECK_SECONDS:g} s")
        return asyncio.CancelledError() if task.cancelled() else task.exception()

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved


class CloseConnections(Stage):
    """Asks clients of a draining process to use another connection for their next request (RFC 9112, section 9.6)."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def head(self, exchange: Exchange, head: Head) -> None:  # noqa: ARG002 -- the same for all requests
        """Add the header; also to responses of requests that began before the draining."""
        if self._readiness.draining:
            head.set(_CLOSE)


async def _timed(check: HealthCheck) -> float:
    started = time.monotonic()
    await check.check()
    return time.monotonic() - started


def _readiness_of(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


async def get_health() -> Health:
    """Tell that the process runs; no I/O."""
    return Health()


async def get_readiness(response: Response, readiness: Annotated[Readiness, Depends(_readiness_of)]) -> ReadinessReport:
    """Tell whether the process can serve: 200 when ready or degraded, 503 otherwise; at most a second old."""
    report = await readiness.report()
    if report.status is ReadinessStatus.NOT_READY:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return report


def wire_health(app: FastAPI, readiness: Readiness) -> None:
    """Add `/api/v1/health` and `/api/v1/readiness` to `app`; wire them first, because they are requested all the time.

    The server must call `readiness.drain()` (`app.state.readiness`) when it begins to shut down. Readiness is 503 from
    then on, and `CloseConnections`, which must be in the app's pipeline, adds `Connection: close` to every response,
    so that balancers and clients leave while requests are still served.
    """
    require_stages(app, CloseConnections)
    app.state.readiness = readiness
    # Not in an included router, whose routes are matched twice.
    app.add_api_route("/api/v1/health", get_health, name="health", tags=["service"])
    app.add_api_route(
        "/api/v1/readiness",
        get_readiness,
        name="readiness",
        tags=["service"],
        responses={status.HTTP_503_SERVICE_UNAVAILABLE: {"model": ReadinessReport}},
    )
    wire_polled_routes(app, get_health, get_readiness)

"""Health and readiness: whether the process runs, whether what it stands on does, and whether it is about to end."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from fastapi import Depends, FastAPI, Request, Response, status
from pydantic import BaseModel, Field
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import wire_polled_routes
from tequipy_platform.domain.health import HealthCheck, RefusesWrites

_CHECK_SECONDS: Final = 2.0
_CACHE_SECONDS: Final = 1.0

_logger = logging.getLogger(__name__)


class Health(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"


class CheckReport(BaseModel):
    """How one check went; `refusing` answers, and takes no writes; why it failed stands in the log."""

    status: Literal["up", "refusing", "down"]
    duration_ms: float = Field(examples=[1.2])


class ReadinessReport(BaseModel):
    """`not_ready`: a required check is not up, or the process is ending (no checks then); `degraded`: another one."""

    status: Literal["ready", "degraded", "not_ready"]
    checks: dict[str, CheckReport] = Field(examples=[{"database": {"status": "up", "duration_ms": 1.2}}])


class Readiness:
    """Runs the checks side by side, at most once a second however many ask."""

    def __init__(self, checks: Sequence[HealthCheck]) -> None:
        self._checks = checks
        self._flight: asyncio.Task[ReadinessReport] | None = None
        self._flown_at = 0.0
        self._abandoned: set[asyncio.Task[object]] = set()
        self._failing: dict[str, str] = {}
        self.draining = False

    def drain(self) -> None:
        """Be not ready from now on, at once and whatever the checks say: the process is about to end."""
        self.draining = True

    async def report(self) -> ReadinessReport:
        """Return a report that is at most a second old; whoever asks meanwhile shares it."""
        if self.draining:
            return ReadinessReport(status="not_ready", checks={})
        flight = self._flight
        if flight is None or (flight.done() and time.monotonic() - self._flown_at >= _CACHE_SECONDS):
            flight = self._flight = asyncio.create_task(self._run())
        # Shielded: one caller that goes away does not take the answer from the others.
        return await asyncio.shield(flight)

    async def _run(self) -> ReadinessReport:
        started = time.monotonic()
        tasks = {check.name: asyncio.create_task(_timed(check)) for check in self._checks}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=_CHECK_SECONDS)
        reports = {name: self._conclude(name, task, started) for name, task in tasks.items()}
        self._flown_at = time.monotonic()
        down = {check.required for check in self._checks if reports[check.name].status != "up"}
        outcome: Literal["ready", "degraded", "not_ready"] = "not_ready" if True in down else "degraded"
        silent = {check.name for check in self._checks if check.only_when_down and reports[check.name].status == "up"}
        shown = {name: report for name, report in reports.items() if name not in silent}
        return ReadinessReport(status=outcome if down else "ready", checks=shown)

    def _conclude(self, name: str, task: asyncio.Task[float], started: float) -> CheckReport:
        error = self._failure_of(task)
        if error is None:
            self._failing.pop(name, None)
            return CheckReport(status="up", duration_ms=round(task.result() * 1000, 1))
        status: Literal["refusing", "down"] = "refusing" if isinstance(error, RefusesWrites) else "down"
        if self._failing.get(name) != status:  # once per outage, not once per probe
            _logger.warning("readiness check %r is %s: %r", name, status, error)
        self._failing[name] = status
        return CheckReport(status=status, duration_ms=round((time.monotonic() - started) * 1000, 1))

    def _failure_of(self, task: asyncio.Task[float]) -> BaseException | None:
        if not task.done():
            # Cancelled and left behind: awaiting a driver that hangs would take as long as the driver pleases.
            task.cancel()
            self._abandoned.add(task)
            task.add_done_callback(self._forget)
            return TimeoutError(f"no answer within {_CHECK_SECONDS:g} s")
        return asyncio.CancelledError() if task.cancelled() else task.exception()

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # seen


class CloseConnections:
    """Tells clients, while the process drains, to send their next request over another connection (RFC 9112, 9.6)."""

    def __init__(self, app: ASGIApp, readiness: Readiness) -> None:
        self._app = app
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; one that began before the draining is told too."""

        async def send_last(message: Message) -> None:
            if self._readiness.draining and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_last)


async def _timed(check: HealthCheck) -> float:
    started = time.monotonic()
    await check.check()
    return time.monotonic() - started


def _readiness_of(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


async def health() -> Health:
    """Tell that the process runs; no I/O."""
    return Health()


async def readiness(response: Response, readiness: Annotated[Readiness, Depends(_readiness_of)]) -> ReadinessReport:
    """Tell whether the process can serve: 200 when ready or degraded, 503 otherwise; at most a second old."""
    report = await readiness.report()
    if report.status == "not_ready":
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return report


def wire_health(app: FastAPI, checks: Sequence[HealthCheck]) -> None:
    """Add `/api/v1/health` and `/api/v1/readiness` to `app`.

    Whoever runs the app calls `app.state.readiness.drain()` when it is told to end: readiness is 503 from then on, and
    every answer carries `Connection: close`, so that balancers and clients go elsewhere while everything is served.
    """
    app.state.readiness = Readiness(checks)
    # The outermost, unlike other middleware: answers that others make themselves end their connection too.
    app.user_middleware.insert(0, Middleware(CloseConnections, readiness=app.state.readiness))
    # One by one: the routes of an included router are looked through twice, and these are asked for all day long.
    app.add_api_route("/api/v1/health", health, tags=["service"])
    app.router.routes.insert(0, app.router.routes.pop())  # found first
    app.add_api_route(
        "/api/v1/readiness",
        readiness,
        tags=["service"],
        responses={status.HTTP_503_SERVICE_UNAVAILABLE: {"model": ReadinessReport}},
    )
    wire_polled_routes(app, health, readiness)

"""Settings, and `configure_observability`, the only function of the workspace that sets process-wide state."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Histogram, make_wsgi_app

from tequipy_observability._tracing import Tracer, install_tracer
from tequipy_observability.logging import Process, configure_logging
from tequipy_observability.metrics import (
    METRICS_REFUSALS,
    MetricsAccess,
    MetricsPort,
    SharedRegistry,
    build_registry,
    service_up_gauge,
)
from tequipy_observability.settings import ObservabilitySettings, parse_headers

__all__ = ["Observability", "ObservabilitySettings", "configure_observability"]

LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_WATCH_SECONDS: Final = 0.25


class Observability:
    """The result of `configure_observability`; the async context manager serves the metrics' own port.

    Within the context the lag of the event loop is measured, and spans are recorded if that is configured. Only the
    process that created the object serves the port; a forked child may enter the context, but opens no port.
    """

    def __init__(
        self,
        settings: ObservabilitySettings,
        registry: CollectorRegistry,
        *,
        service: str = "service",
        metrics_port_name: str = "metrics_port",
        tracer: Tracer | None = None,
    ) -> None:
        self.registry = registry
        self._up = service_up_gauge(service, registry)
        self._tracer = tracer or Tracer()
        self._port_name = metrics_port_name
        self._lag = Histogram(
            "event_loop_lag_seconds",
            "Seconds by which the event loop was late, asked four times a second.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._watch: asyncio.Task[None] | None = None
        self.metrics_port = settings.metrics_port
        self._access = MetricsAccess(settings.metrics_token)
        self._process = os.getpid()
        self._server: MetricsPort | None = None

    def report_up(self, up: bool) -> None:  # noqa: FBT001 -- the value of a gauge
        """Set the metric `service_up`: whether the process can work, as its last check of the services found."""
        self._up.set(up)

    def refuse_metrics(self, authorization: str, client: str | None) -> tuple[int, Mapping[str, str]] | None:
        """Return status and header fields of a refusal if the sender of this Authorization header may not read."""
        status = self._access.check(authorization, client)
        return None if status == 200 else (status, METRICS_REFUSALS[status])  # noqa: PLR2004 -- OK

    async def __aenter__(self) -> Self:
        self.serve()
        self._tracer.start()
        self._watch = asyncio.create_task(self._watch_loop(), name="tequipy-event-loop-lag")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        self._write_samples()
        await asyncio.to_thread(self._tracer.stop)
        await asyncio.to_thread(self.stop_serving)

    def serve(self) -> None:
        """Open the port if one is configured; raises `OSError` when it is not available."""
        port = self.metrics_port
        if port is None or self._server is not None or os.getpid() != self._process:
            return
        try:
            self._server = MetricsPort(port, self._serve_guarded)
        except OSError as error:
            advice = f"free it, or choose another in the setting {self._port_name}"
            raise OSError(error.errno, f"the metrics cannot have port {port} ({error.strerror}): {advice}") from error

    def stop_serving(self) -> None:
        """Close the port if it is open, and return when it is closed."""
        if self._server is None or os.getpid() != self._process:
            return
        server, self._server = self._server, None
        server.close()

    async def _watch_loop(self) -> None:
        """Measure four times a second how late the event loop runs a timer, as all other callbacks are equally late."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _WATCH_SECONDS
            await asyncio.sleep(_WATCH_SECONDS)
            self._lag.observe(max(0.0, loop.time() - due))
            self._write_samples()

    def _write_samples(self) -> None:
        if isinstance(self.registry, SharedRegistry):
            self.registry.write_samples()

    def _serve_guarded(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refusal = self.refuse_metrics(environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR"))
        if refusal is None:
            body: Iterable[bytes] = make_wsgi_app(self.registry)(environ, start_response)
            return body
        status, fields = refusal
        start_response(f"{status} {HTTPStatus(status).phrase}", [*fields.items(), ("Content-Length", "0")])
        return []


def configure_observability(
    settings: ObservabilitySettings,
    *,
    service: str,
    environment: str,
    version: str,
    metrics_folder: Path | None = None,
    metrics_port_name: str = "metrics_port",
) -> Observability:
    """Configure logging and tracing for this process; return its registry together with what serves the metrics.

    With a `metrics_folder` (empty and used by this process alone), forked children count in the same registry. The
    variable `PROMETHEUS_MULTIPROC_DIR` must name the folder by then, and must be set before `prometheus_client` is
    imported. `metrics_port_name` is the name under which the app reads the setting, for the error about a port that is
    taken.
    """
    style = settings.log_format
    if style == "auto":
        style = "console" if environment == "local" else "json"
    configure_logging(Process(service, environment, version), level=settings.log_level, style=style)
    registry = build_registry(name=service, version=version, environment=environment, folder=metrics_folder)
    tracer = _build_tracer(settings, service=service, environment=environment, version=version)
    install_tracer(tracer)
    return Observability(settings, registry, service=service, metrics_port_name=metrics_port_name, tracer=tracer)


def _build_tracer(settings: ObservabilitySettings, *, service: str, environment: str, version: str) -> Tracer:
    if settings.otlp_endpoint is None:
        return Tracer()
    from tequipy_observability.tracing import build_tracer  # noqa: PLC0415 -- only processes that record spans load OpenTelemetry

    return build_tracer(
        settings.otlp_endpoint,
        (settings.otlp_headers and parse_headers(settings.otlp_headers)) or {},
        sample_ratio=settings.trace_sample_ratio,
        service=service,
        environment=environment,
        version=version,
    )

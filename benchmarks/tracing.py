"""Measures what tracing costs a request: while it is off, for a trace that is not sampled, and for a recorded one.

One app in this process is called through its middleware without a server, by turns in each state, so that other load of
the machine affects all alike. Its route has four steps, like a request with three statements and a commit.
"""

import asyncio
import statistics
from collections.abc import Sequence
from time import thread_time
from timeit import timeit
from typing import Final

from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from report import print_table
from starlette.middleware import Middleware
from starlette.types import Message, Scope

from tequipy_observability import SpanKind, span
from tequipy_observability._tracing import Tracer, install_tracer
from tequipy_observability.api import ObserveRequests, Pipeline, TraceRequests
from tequipy_observability.metrics import build_registry
from tequipy_observability.tracing import OtelTracer
from tequipy_observability.wiring import ObservabilitySettings, configure_observability

ROUNDS: Final = 21
REQUESTS: Final = 400
STEPS: Final = 4
SAMPLED: Final = f"00-{'a' * 32}-{'b' * 16}-01"
UNSAMPLED: Final = f"00-{'a' * 32}-{'b' * 16}-00"


class Discard(SpanExporter):
    """An exporter that drops spans: encoding and sending happen in another thread, and are not measured here."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 -- they are dropped
        """Drop the spans."""
        return SpanExportResult.SUCCESS


def build_app() -> FastAPI:
    """Return an app whose route has a few steps."""
    registry = build_registry(name="bench", version="1", environment="test")
    app = FastAPI(middleware=[Middleware(Pipeline, [ObserveRequests(registry), TraceRequests()])])

    @app.get("/orders/{number}")
    async def read(number: int) -> int:
        for _ in range(STEPS):
            with span("SELECT", "orders", kind=SpanKind.CLIENT) as step:
                if step.recording:
                    step.set("db.system.name", "postgresql")
        return number

    return app


async def call(app: FastAPI, traceparent: str, requests: int) -> float:
    """Call the route, and return the CPU time of this thread per request in microseconds."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Message) -> None: ...

    began = thread_time()
    for _ in range(requests):
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": "/orders/7",
            "raw_path": b"/orders/7",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [(b"traceparent", traceparent.encode())],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        await app(scope, receive, send)
    return (thread_time() - began) / requests * 1e6


async def compare() -> None:
    """Print the table."""
    tracer = OtelTracer(lambda: BatchSpanProcessor(Discard()))
    tracer.start()
    app = build_app()
    states: dict[str, tuple[Tracer, str]] = {
        "off": (Tracer(), SAMPLED),
        "on, trace not sampled": (tracer, UNSAMPLED),
        f"on, {STEPS + 1} spans recorded": (tracer, SAMPLED),
    }
    times: dict[str, list[float]] = {name: [] for name in states}
    for number in range(ROUNDS + 1):
        for name, (each, traceparent) in states.items():
            install_tracer(each)
            took = await call(app, traceparent, REQUESTS)
            if number:  # the first round is a warm-up
                times[name].append(took)
    tracer.stop()
    install_tracer(Tracer())
    rows = [
        (name, statistics.median(took), statistics.median(a - b for a, b in zip(took, times["off"], strict=True)))
        for name, took in times.items()
    ]
    print_table(
        f"Cost of tracing: {ROUNDS} rounds of {REQUESTS} requests in each state, medians",
        ["tracing", "µs of CPU a request", "more than off"],
        rows,
    )


def step() -> None:
    """Make one step."""
    with span("SELECT", "orders", kind=SpanKind.CLIENT):
        pass


def main() -> None:
    """Run the comparison, and measure one step while tracing is off."""
    # Without access events, whose writing would hide the difference.
    configure_observability(ObservabilitySettings(log_level="ERROR"), service="bench", environment="test", version="1")
    nanoseconds = min(timeit(step, number=100_000) for _ in range(7)) / 100_000 * 1e9
    print(f"One `with span(…)` while tracing is off: {nanoseconds:.0f} ns (best of 7)")
    asyncio.run(compare())


if __name__ == "__main__":
    main()

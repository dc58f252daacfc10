"""Tracing of the shipped API."""

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, event

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_observability import SpanKind, current_context
from tequipy_observability.testing import SpanRecorder, describe_spans, recorded_spans
from tequipy_platform.web import route_reports

PROGRAM = """
import asyncio, sys
import httpx
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_platform.settings import load_settings

async def request(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.get("/api/v1/nowhere?token=s3cret")
    print([span.name for span in exporter.get_finished_spans()])
    exporter.clear()

asyncio.run(request(FastAPI()))
asyncio.run(request(create_app(load_settings(ApiSettings))))
"""


def test_fastapi_records_no_spans_of_its_own(environment: dict[str, str], tmp_path: Path) -> None:
    """With a global tracer provider FastAPI records requests with their query; in our app it does not."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "TEQUIPY_OBSERVABILITY__LOG_LEVEL": "ERROR"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    bare, ours = result.stdout.splitlines()
    assert (bare, ours) == ("['GET']", "[]")


@pytest.fixture
async def traced(settings: ApiSettings) -> AsyncIterator[tuple[httpx.AsyncClient, SpanRecorder]]:
    """Yield a client of the app, and what it records."""
    app = create_app(settings)
    with recorded_spans() as recorder:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example.com") as client,
        ):
            yield client, recorder


@contextmanager
def counted(*names: str) -> Iterator[Counter[str]]:
    """Count the events of engines that belong to the request with the correlation id `counted`."""
    seen: Counter[str] = Counter()
    listeners = {name: partial(_count, seen, name) for name in names}
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    yield seen
    for name, listener in listeners.items():
        event.remove(Engine, name, listener)


def _count(seen: Counter[str], name: str, *_: object) -> None:
    seen[name] += current_context().correlation_id == "counted"


async def test_the_spans_of_a_request_are_counted(traced: tuple[httpx.AsyncClient, SpanRecorder]) -> None:
    """A registration has one span of the server, one for each statement, commit and call of Redis, and one message."""
    client, recorder = traced
    body = {"email": "ada@example.com", "password": "correct horse battery staple"}
    headers = {"X-Correlation-ID": "counted"}
    with counted("before_cursor_execute", "commit") as seen:
        assert (await client.post("/api/v1/auth/register", json=body, headers=headers)).status_code == 202
    spans = recorder.spans
    print(f"\n{describe_spans(spans)}")
    of_sql = [span for span in spans if span.attributes.get("db.system.name") == "postgresql"]
    assert seen["before_cursor_execute"] >= 4
    assert len(of_sql) == seen["before_cursor_execute"] + seen["commit"]
    assert [span.name for span in spans if span.kind is SpanKind.SERVER] == ["POST /api/v1/auth/register"]
    assert [span.name for span in spans if span.kind is SpanKind.PRODUCER] == ["create auth.send_mail"]
    of_redis = [span for span in spans if span.attributes.get("db.system.name") == "redis"]
    assert len(spans) == len(of_sql) + len(of_redis) + 2
    assert {span.trace_id for span in spans} == {spans[0].trace_id}


async def test_health_and_readiness_are_not_recorded(traced: tuple[httpx.AsyncClient, SpanRecorder]) -> None:
    """What orchestrators ask every few seconds records nothing, and neither do the checks that it causes."""
    client, recorder = traced
    for path in ("health", "readiness"):
        assert (await client.get(f"/api/v1/{path}")).status_code == 200
    assert recorder.spans == []


async def test_compiled_and_other_routes_have_one_server_span_each(settings: ApiSettings) -> None:
    """Each request has one span of the server, named by its route, whoever serves the route."""
    app = create_app(settings)
    reports = [report for report in route_reports(app) if "{" not in report.path and "*" not in report.method]
    polled = ("/api/v1/health", "/api/v1/readiness", "/metrics")
    asked = [report for report in reports if report.path not in polled]
    assert {report.reason is None for report in asked} == {True, False}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example.com") as client,
    ):
        for report in asked:
            with recorded_spans() as recorder:
                await client.request(report.method, report.path)
            servers = [span.name for span in recorder.spans if span.kind is SpanKind.SERVER]
            assert servers == [f"{report.method} {report.path}"]
    print({kind: sum((each.reason is None) is kind for each in asked) for kind in (True, False)})

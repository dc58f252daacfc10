"""Tracing of the shipped API."""

import subprocess
import sys
from pathlib import Path

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

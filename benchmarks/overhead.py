"""Measures what each stage of the API's pipeline costs a request: a typed route bare, with each stage alone, with all.

The stages are those of the shipped app, with its settings, its connection to Valkey and its access log in a file. Every
variant is called in this process without a server, in turn, so that other load of the machine affects all alike; the
figures therefore contain neither the parsing of HTTP nor the sockets.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import uvloop
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from harness.document import write_section
from harness.load import BadResponses
from harness.testbed import testbed
from pydantic import BaseModel
from report import markdown_table
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Scope

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_observability.api import Pipeline, Stage, stages_of
from tequipy_platform.settings import load_settings

REQUESTS: Final = 200
PATH: Final = "/orders/7"
QUIET: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


class Order(BaseModel):
    """The response of the route."""

    number: int
    currency: str
    lines: list[str]


def build(*middleware: Middleware, telemetry: TelemetryConfig | None = QUIET) -> FastAPI:
    """Return an app with one typed route and some middleware."""
    app = FastAPI(middleware=[*middleware], telemetry=telemetry)

    @app.get("/orders/{number}")
    async def read_order(number: int) -> Order:
        return Order(number=number, currency="EUR", lines=["pen", "paper"])

    return app


def variants(shipped: FastAPI) -> dict[str, ASGIApp]:
    """Return the apps that are compared, the bare one first."""
    stages = stages_of(shipped)
    inner = {getattr(cls, "__name__", ""): Middleware(cls) for cls, args, _ in shipped.user_middleware if not args}
    apps: dict[str, ASGIApp] = {"bare FastAPI": build(telemetry=None), "bare, FastAPI's telemetry off": build()}
    apps |= {f"with `{type(each).__name__}` alone": build(_pipeline(each)) for each in stages}
    apps["with all stages"] = build(_pipeline(*stages))
    apps |= {f"with `{name}` alone": build(each) for name, each in inner.items()}
    if inner:
        apps["with everything"] = build(_pipeline(*stages), *inner.values())
    return apps


def _pipeline(*stages: Stage) -> Middleware:
    return Middleware(Pipeline, stages)


async def call(app: ASGIApp, requests: int) -> float:
    """Call the route, and return the CPU time of this process per request in microseconds."""
    statuses = set[int]()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    began = time.process_time()
    for _ in range(requests):
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": "GET",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [(b"host", b"127.0.0.1"), (b"accept", b"*/*"), (b"user-agent", b"bench")],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        await app(scope, receive, send)
    # The turn in which lines of the access log are written belongs to the requests.
    await asyncio.sleep(0)
    spent = time.process_time() - began
    if statuses != {200}:
        raise BadResponses(f"the route answered {statuses}")
    return spent / requests * 1e6


async def measure(shipped: FastAPI, rounds: int) -> Mapping[str, list[float]]:
    """Return the samples of each variant; the first round is a warm-up and is discarded."""
    apps = variants(shipped)
    samples: dict[str, list[float]] = {name: [] for name in apps}
    async with shipped.router.lifespan_context(shipped):
        for number in range(rounds + 1):
            for name, app in apps.items():
                took = await call(app, REQUESTS)
                if number:
                    samples[name].append(took)
    return samples


def table(samples: Mapping[str, list[float]]) -> str:
    """Return the medians, each compared with the bare route in the same round."""
    bare = next(iter(samples.values()))
    rows: list[list[object]] = []
    for name, took in samples.items():
        ratios = [a / b for a, b in zip(took, bare, strict=True)]
        more = statistics.median(a - b for a, b in zip(took, bare, strict=True))
        median, span = f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append([name, statistics.median(took), more, median, span])
    return markdown_table(("", "µs CPU", "more than bare", "times bare", "min to max"), rows)


@contextmanager
def output_in(file: Path) -> Iterator[None]:
    """Send what the process prints to a file, as a deployment does with its log."""
    sys.stdout.flush()
    terminal = os.dup(1)
    with file.open("ab") as log:
        os.dup2(log.fileno(), 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(terminal, 1)
        os.close(terminal)


@click.command()
@click.option("--rounds", default=21, show_default=True, type=click.IntRange(1), help="Rounds after the warm-up.")
@click.option("--print", "only_print", is_flag=True, help="Change no file.")
def main(rounds: int, only_print: bool) -> None:  # noqa: FBT001 -- click passes it by name
    """Measure, print the table, and write it into docs/."""
    with testbed() as bed, tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            (name, value) for name, value in bed.deployment().environment.items() if name.startswith("TEQUIPY_")
        )
        os.chdir(folder)  # so that a developer's `.env` is not read
        with output_in(Path(folder) / "log"):
            samples = uvloop.run(measure(create_app(load_settings(ApiSettings)), rounds))
    text = f"{table(samples)}\n{rounds} rounds of {REQUESTS} requests for each variant, medians."
    print(text)
    if not only_print:
        write_section("overhead", text)


if __name__ == "__main__":
    main()

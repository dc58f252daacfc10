"""Compares the HTTP path of this service with bare frameworks and with the libraries that do parts of its work.

Every server is one process on one core; load generator, PostgreSQL and Valkey share the other ones. All targets are
measured in turn in every round, and each is compared with bare FastAPI in the same round. The tables and the chart go
to docs/performance.md and docs/performance.svg; `--rounds 1 --print` only prints.
"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Final

import click
import httpx
from harness import chart
from harness.document import PAGE, write_section
from harness.load import Request, find_generator
from harness.measure import COLUMNS, RATIOS, Comparison, Scenario, Target, measure
from harness.servers import Server, peers_python
from harness.testbed import Testbed, bearer, log_in, testbed
from report import markdown_table

from tequipy_devstack.proving.traffic import ADMIN, PASSWORD

CHART: Final = PAGE.with_suffix(".svg")
HEALTH: Final = Request("GET", "/api/v1/health")
PRODUCT: Final = Request("GET", "/api/v1/products/7")
ORDER: Final = {
    "reference": "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e",
    "currency": "EUR",
    "note": "Leave it at the door",
    "lines": [{"sku": f"pen-{number}", "quantity": number} for number in range(1, 6)],
}
EVERYTHING: Final = "Tequipy, everything on"
PACKAGES: Final = (
    "fastapi",
    "starlette",
    "uvicorn",
    "pydantic",
    "litestar",
    "fastapi-users",
    "prometheus-fastapi-instrumentator",
    "asgi-correlation-id",
    "slowapi",
    "cashews",
    "aiocache",
)


def start_users_stack(bed: Testbed) -> tuple[Server, Mapping[str, str]]:
    """Start fastapi-users and its companions, and return it with the header of an access token."""
    url = bed.postgres.create_database("users")
    server = bed.peer("users_stack", access_log=True, DATABASE_URL=url)
    credentials = {"email": ADMIN, "password": PASSWORD}
    httpx.post(f"{server.url}/auth/register", json=credentials, timeout=30).raise_for_status()
    form = {"username": ADMIN, "password": PASSWORD}
    answer = httpx.post(f"{server.url}/auth/jwt/login", data=form, timeout=30).raise_for_status()
    return server, bearer(answer.json()["access_token"])


def scenarios(bed: Testbed) -> list[Scenario]:
    """Start all servers, and return what is compared."""
    service = bed.service(bed.deployment())
    with httpx.Client(base_url=service.url, timeout=30) as client:
        ours = bearer(log_in(client)["access_token"])
    users, users_bearer = start_users_stack(bed)
    bare, starlette, litestar = (bed.peer(f"bare_{name}") for name in ("fastapi", "starlette", "litestar"))
    quiet = bed.peer("bare_fastapi", TELEMETRY="off")
    valkey = bed.valkey
    slow = {
        "slowapi, memory": bed.peer("limited_slowapi", STORAGE="memory://"),
        "slowapi, Redis": bed.peer("limited_slowapi", STORAGE=valkey.url(4)),
    }
    caches = {
        "cashews, Redis and memory": bed.peer("cached_cashews", CACHE_URL=valkey.url(5), CLIENT_SIDE="1"),
        "cashews, Redis": bed.peer("cached_cashews", CACHE_URL=valkey.url(6), CLIENT_SIDE="0"),
        "aiocache, Redis": bed.peer("cached_aiocache", CACHE_URL=valkey.url(7)),
    }
    me = Request("GET", "/api/v1/auth/me")
    order = Request("POST", "/api/v1/orders", json=ORDER)
    known_order = Request("POST", "/api/v1/orders", headers=ours, json=ORDER)

    def bare_ones(request: Request) -> list[Target]:
        servers = {
            "bare FastAPI": bare,
            "bare FastAPI, its telemetry off": quiet,
            "bare Starlette": starlette,
            "bare Litestar": litestar,
        }
        return [Target(name, server, request) for name, server in servers.items()]

    return [
        Scenario("`GET /health`", [*bare_ones(HEALTH), Target(EVERYTHING, service, HEALTH, ours=True)]),
        Scenario(
            "`GET /me`, authenticated (the bare routes ask for no token)",
            [
                *bare_ones(me),
                Target("fastapi-users, instrumentator, correlation id", users, _with("/users/me", users_bearer)),
                Target(EVERYTHING, service, _with(me.path, ours), ours=True),
            ],
        ),
        Scenario(
            "`POST /orders`, a validated JSON body and a response model",
            [*bare_ones(order), Target(EVERYTHING, service, known_order, ours=True)],
        ),
        Scenario(
            "A rate-limited route",
            [
                Target("bare FastAPI", bare, PRODUCT),
                *(Target(name, server, PRODUCT) for name, server in slow.items()),
                Target("FastAPI with our LimitRates, Redis", bed.alone("limited"), PRODUCT, ours=True),
            ],
        ),
        Scenario(
            "A route that reads through a cache",
            [
                Target("bare FastAPI", bare, PRODUCT),
                *(Target(name, server, PRODUCT) for name, server in caches.items()),
                Target("FastAPI with our cache, Redis and memory", bed.alone("cached"), PRODUCT, ours=True),
            ],
        ),
    ]


def _with(path: str, headers: Mapping[str, str]) -> Request:
    return Request("GET", path, headers)


def goals(measured: Sequence[Scenario]) -> str:
    """Return a table with the ratios that this project aims at."""
    health, me, order = measured[:3]
    wanted = [
        ("`health` / bare FastAPI", 2.0, health, "bare FastAPI"),
        ("`me` / bare FastAPI", 1.0, me, "bare FastAPI"),
        ("`me` / fastapi-users", 18.0, me, "fastapi-users"),
        ("`orders` / bare FastAPI", 1.0, order, "bare FastAPI"),
    ]
    rows: list[list[object]] = [
        [name, f"{least:.1f}", *Comparison(scenario.find(EVERYTHING), scenario.find(base)).columns()]
        for name, least, scenario, base in wanted
    ]
    return markdown_table(("goal", "at least", *RATIOS), rows)


def described(generator: str, *, rounds: int, seconds: int, load: tuple[float, float]) -> str:
    """Return when, where and how the run was made."""
    lines = subprocess.run(  # noqa: S603 -- our own command line
        [peers_python(), "-c", f"import importlib.metadata as m\nfor n in {PACKAGES}: print(n, m.version(n))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} cores, CPython {platform.python_version()}, "
        f"{generator}, {rounds} rounds of {seconds} s for each target, load of the machine {load[0]:.1f} before and "
        f"{load[1]:.1f} after. {', '.join(lines)}."
    )


@click.command()
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Rounds after the warm-up.")
@click.option("--seconds", default=1, show_default=True, type=click.IntRange(1), help="Length of one sample.")
@click.option("--print", "only_print", is_flag=True, help="Change no file.")
def main(rounds: int, seconds: int, only_print: bool) -> None:  # noqa: FBT001 -- click passes it by name
    """Compare, print the tables, and write them and the chart into docs/."""
    before = os.getloadavg()[0]
    generator = find_generator()
    with testbed() as bed:
        measured = scenarios(bed)
        measure(measured, generator, rounds=rounds, seconds=seconds, report=lambda text: print(text, flush=True))
    tables = [f"### {each.title}\n\n{markdown_table(COLUMNS, each.rows())}" for each in measured]
    text = "\n".join([f"### The goals\n\n{goals(measured)}", *tables])
    run = described(generator.name, rounds=rounds, seconds=seconds, load=(before, os.getloadavg()[0]))
    print(f"\n{text}\n{run}")
    if not only_print:
        write_section("comparison", f"{text}\n{run}")
        CHART.write_text(_drawn(measured), encoding="utf-8")


def _drawn(measured: Sequence[Scenario]) -> str:
    charts = [(scenario.title.replace("`", ""), [_bar(each) for each in scenario.comparisons]) for scenario in measured]
    return chart.draw(charts, description="Requests per second of CPU time, as a share of bare FastAPI")


def _bar(comparison: Comparison) -> chart.Bar:
    target, ratios = comparison.target, comparison.cpu
    return chart.Bar(target.name, min(ratios), statistics.median(ratios), max(ratios), target.ours)


if __name__ == "__main__":
    main()

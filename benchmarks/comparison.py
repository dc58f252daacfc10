"""Compares the HTTP path of this service with bare frameworks and with the libraries that do parts of its work.

Every server is one process on one core; load generator, PostgreSQL and Valkey share the other ones. All targets are
measured in turn in every round, and each is compared with bare FastAPI in the same round. The tables and the chart go
to docs/performance.md and docs/performance.svg; `--rounds 1 --print` only prints.
"""

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from typing import Final

import click
import httpx
from harness import chart
from harness.document import PAGE, write_section
from harness.load import Request, find_generator
from harness.measure import COLUMNS, Scenario, Target, measure
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
    everything = "Tequipy, everything on"

    def bare_ones(request: Request) -> list[Target]:
        servers = {
            "bare FastAPI": bare,
            "bare FastAPI, its telemetry off": quiet,
            "bare Starlette": starlette,
            "bare Litestar": litestar,
        }
        return [Target(name, server, request) for name, server in servers.items()]

    return [
        Scenario("`GET /health`", [*bare_ones(HEALTH), Target(everything, service, HEALTH, ours=True)]),
        Scenario(
            "`GET /me`, authenticated (the bare routes ask for no token)",
            [
                *bare_ones(me),
                Target("fastapi-users, instrumentator, correlation id", users, _with("/users/me", users_bearer)),
                Target(everything, service, _with(me.path, ours), ours=True),
            ],
        ),
        Scenario(
            "`POST /orders`, a validated JSON body and a response model",
            [*bare_ones(order), Target(everything, service, known_order, ours=True)],
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
    text = "\n".join(f"### {each.title}\n\n{markdown_table(COLUMNS, each.rows())}" for each in measured)
    run = described(generator.name, rounds=rounds, seconds=seconds, load=(before, os.getloadavg()[0]))
    print(f"\n{text}\n{run}")
    if not only_print:
        write_section("comparison", f"{text}\n{run}")
        CHART.write_text(_drawn(measured), encoding="utf-8")


def _drawn(measured: list[Scenario]) -> str:
    charts = []
    for scenario in measured:
        bars = []
        for target in scenario.targets:
            ratios = sorted(scenario.cpu_ratios(target))
            bars.append(chart.Bar(target.name, ratios[0], ratios[len(ratios) // 2], ratios[-1], target.ours))
        charts.append((scenario.title.replace("`", ""), bars))
    return chart.draw(charts, description="Requests per second of CPU time, as a share of bare FastAPI")


if __name__ == "__main__":
    main()

"""Dashboards and rules on a real Prometheus that scrapes both apps under load."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from threading import Event, Thread
from uuid import uuid4

import httpx
import pytest
from prometheus_client import CollectorRegistry, start_http_server

from tequipy_devstack.ports import free_port
from tequipy_devstack.proving import Deployment, Load, Route, eventually, traffic
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD
from tequipy_platform.http import HttpSettings, build_http_clients

from .prometheus import PROMETHEUS, Prometheus
from .promql import ALERTS, DASHBOARDS, RULES, panels

WINDOW = "30s"
"""What Grafana's $__rate_interval becomes: at least four scrapes."""

PAUSE = 0.2
"""Seconds between two rounds of calls."""

Query = tuple[str, str, str]

OF_FAULTS = {
    "Attempts that failed, by task",
    "Buckets that Redis has lost",
    "Failed attempts that are followed by another",
    "Failed requests by route",
    "Refused hashes",
}
"""Panels that show nothing as long as nothing fails, because their series appear with the first failure."""

OF_REPORTS = {"Age of the daily activity", "Reports by outcome", "Duration of reports (95 %)", "Size of reports (95 %)"}
"""Panels that show nothing until a report has ended, or the activity was compared with the audit."""

OF_LOAD = {"ErrorBudgetBurnsFast", "LatencyBudgetBurnsFast", "EventLoopBlocked", "RedisUnreachable"}
"""Alerts that an overloaded machine raises rightly."""

PROVOKED = "WebhookAddressesRefused"

SETTINGS = {
    "TEQUIPY_RATE_LIMITS__DEFAULT": "60000/60",
    "TEQUIPY_RATE_LIMITS__LOGIN": "600/60",
    "TEQUIPY_AUTH__BREACHED_PASSWORDS_URL": "http://127.0.0.1:1",  # where nobody listens
}

AUTH = "/api/v1/auth"


def requests(url: str) -> list[Route]:
    """Return routes that use each part of the API: logins, refreshes, mails, changes of a cached value, readiness."""
    common = traffic(url)
    bearer = next(route.headers for route in common if route.headers)
    login = {"email": ADMIN, "password": PASSWORD, "token_delivery": "body"}
    return [
        *common,
        Route("POST", f"{AUTH}/login", 200, body=lambda: login),
        Route("POST", f"{AUTH}/login", 401, body=lambda: {**login, "email": "nobody@example.com"}),
        Route("POST", f"{AUTH}/refresh", 401, body=lambda: {"refresh_token": "a token of nobody"}),
        Route("POST", f"{AUTH}/password/forgot", 202, body=lambda: {"email": "nobody@example.com"}),
        Route("PATCH", f"{AUTH}/me", 200, body=lambda: {"name": uuid4().hex}, headers=bearer),
        Route("GET", "/api/v1/readiness", 200),
    ]


def send_malformed_request(port: int) -> None:
    """Send what is no HTTP, so that the server refuses it before the app sees it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nno field\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def queries() -> list[Query]:
    """Return dashboard, panel and expression of each query."""
    return [
        (name, panel["title"], target["expr"])
        for name in DASHBOARDS
        for panel in panels(name)
        for target in panel["targets"]
    ]


def table(rows: dict[Query, list[str]]) -> str:
    """Return the results of queries as a table: dashboard, panel, query, number of series, and one value."""
    lines = ["", "| dashboard | panel | query | series | a value |", f"|{'---|' * 5}"]
    for (name, title, expression), values in rows.items():
        value = f"{float(values[0]):.6g}" if values else ""
        lines.append(f"| {name} | {title} | `{expression}` | {len(values)} | {value} |")
    return "\n".join(lines)


@contextlib.contextmanager
def calling(url: str) -> Iterator[int]:
    """Call the API, and a port where nobody listens, by the HTTP client; yield the port of the client's metrics."""
    registry, ended = CollectorRegistry(), Event()

    async def call() -> None:
        clients = build_http_clients(HttpSettings(), app_name="caller", app_version="1", registry=registry)
        async with clients:
            while not ended.is_set():
                await asyncio.sleep(PAUSE)
                await clients.default.get(f"{url}/api/v1/health")
                for refused, client in (("127.0.0.1", clients.webhooks), ("localhost", clients.health)):
                    with contextlib.suppress(httpx.TransportError):
                        await client.get(f"http://{refused}:{nobody}/")

    port, nobody = free_port(), free_port()
    server, _ = start_http_server(port, "127.0.0.1", registry)
    thread = Thread(target=asyncio.run, args=[call()])
    thread.start()
    try:
        yield port
    finally:
        ended.set()
        thread.join()
        server.shutdown()
        server.server_close()


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.timeout(300)
@pytest.mark.skipif(PROMETHEUS is None, reason="apt-get install prometheus")
def test_panels_and_alerts_show_the_local_stack(deployment: Deployment) -> None:
    """Each panel has data, but those of faults; each rule is evaluated, and raises the provoked alert alone."""
    ports = {name: free_port() for name in ("worker", "relay", "beat")}
    port = {name: {"TEQUIPY_OBSERVABILITY__METRICS_PORT": str(number)} for name, number in ports.items()}
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(deployment.api(**SETTINGS))
        stack.enter_context(deployment.worker(**port["worker"]))
        stack.enter_context(deployment.relay(**port["relay"]))
        stack.enter_context(deployment.scheduler(**port["beat"]))
        targets = {"api": api.port, **ports, "calls": stack.enter_context(calling(api.url))}
        prometheus = stack.enter_context(Prometheus(deployment.folder, targets))
        eventually("all processes are scraped", lambda: len(prometheus.query("up == 1")) == len(targets))
        send_malformed_request(api.port)
        stack.enter_context(Load(api.url, requests(api.url), rate=5))

        rows: dict[Query, list[str]] = {query: [] for query in queries()}

        def missing() -> set[str]:
            """Return the panels of which a query never had data, and the provoked alert until it is raised."""
            for query, known in rows.items():
                series = prometheus.query(query[2].replace("$__rate_interval", WINDOW))
                rows[query] = [each["value"][1] for each in series if each["value"][1] != "NaN"] or known
            empty = {query[1] for query, values in rows.items() if not values}
            return (empty - OF_FAULTS - OF_REPORTS) | ({PROVOKED} - prometheus.raised())

        try:
            eventually("every panel has data", lambda: not missing(), within=150)
        finally:
            print(table(rows), f"missing: {missing()}", sep="\n")
        rules = prometheus.rules()
    states = {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}
    print(f"{len(rows)} queries, {len(rules)} rules; alerts: {states}")
    assert len(rules) == len(RULES)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    assert len(states) == len(ALERTS)
    assert {name for name, state in states.items() if state == "firing"} - OF_LOAD == {PROVOKED}

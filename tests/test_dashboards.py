"""Rules and dashboards of deploy/ name series and labels that exist, and every metric of ours is in a dashboard."""

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tequipy_api.app import create_app
from tequipy_api.edge import Edge
from tequipy_api.settings import ApiSettings
from tequipy_caching.cache.prometheus import PrometheusCacheMetrics
from tequipy_observability.celery.metrics import _OUTCOMES
from tequipy_observability.metrics import build_registry
from tequipy_observability.wiring import Observability
from tequipy_platform import DomainError
from tequipy_platform.http import HttpProfile, HttpSettings
from tequipy_reporting import ReportFailure, ReportStatus
from tequipy_worker.app import build_runtime
from tequipy_worker.heartbeat import Heartbeat
from tequipy_worker.relay import open_relay
from tequipy_worker.settings import WorkerSettings
from tequipy_worker.worker import create_worker

from .promql import (
    DASHBOARDS,
    RECORDED,
    ROOT,
    RULES,
    expressions,
    failures_of_calls,
    grouped,
    panels,
    selectors,
    subclasses,
)

SERVICES = {"api", "worker", "beat", "relay"}
PROFILES = {name for name, each in HttpSettings.model_fields.items() if each.annotation is HttpProfile}
OF_A_SCRAPE = {"job", "instance"}
OF_LIBRARIES = ("process_", "python_")
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
SETTINGS = {
    "ENVIRONMENT": "test",
    "PUBLIC_URL": "https://app.example.com",
    "DATABASE__URL": "postgresql+asyncpg://app@127.0.0.1:1/app",
    "CACHE__URL": "redis://127.0.0.1:1/0",
    "CELERY__BROKER_URL": "redis://127.0.0.1:1/1",
    "MAIL__SMTP_URL": "smtp://127.0.0.1:1",
    "AUTH__BREACHED_PASSWORDS_URL": "http://127.0.0.1:1",
}


@dataclass
class Exported:
    """The series of all processes: the labels of each, and the values that a label may have."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    values: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def add(self, registry: CollectorRegistry) -> None:
        """Add the series of a process, and the label values that it exports from the start."""
        declared = {
            name: set(getattr(collector, "_labelnames", ()))
            for collector, names in registry._collector_to_names.items()
            for name in names
        }
        for family in registry.collect():
            labels = declared.get(family.name, set()) | set(getattr(family, "_labelnames", None) or ())
            for suffix in SUFFIXES.get(family.type, [""]):
                self.labels[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
            for sample in family.samples:
                for label, value in sample.labels.items():
                    self.values.setdefault((sample.name, label), set()).add(value)

    def knows(self, series: str, label: str, pattern: str) -> bool:
        """Return whether each alternative of a matcher matches a value that the label can have."""
        known = [value.lower() for value in self.values.get((series, label), ())]
        return all(any(re.fullmatch(each, value) for value in known) for each in pattern.split("|") if each)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return the series of API, worker and relay, which are composed but reach no server."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("TEQUIPY_")]:
            patch.delenv(name)
        for name, value in SETTINGS.items():
            patch.setenv(f"TEQUIPY_{name}", value)
        exported = asyncio.run(compose(folder))
    # Of series that appear with their first event.
    source = "".join(path.read_text() for path in ROOT.glob("packages/auth/src/tequipy_auth/domain/services/*.py"))
    codes = {error.code for error in subclasses(DomainError)}
    statuses = {str(status) for status in range(200, 600)}
    dropped = re.findall(r'_drop\("(\w+)"\)', (ROOT / "apps/api/src/tequipy_api/edge.py").read_text())
    mails = (ROOT / "packages/platform/src/tequipy_platform/mail/smtp.py").read_text()
    for name, label, values in (
        ("task_total", "outcome", {*_OUTCOMES.values(), "lost", "timed_out", "refused"}),
        ("app_info", "service", SERVICES),
        ("service_up", "service", SERVICES),
        ("http_requests_total", "status", statuses),
        ("http_client_requests_total", "outcome", statuses | failures_of_calls()),
        ("http_client_requests_total", "profile", PROFILES),
        ("http_client_request_duration_seconds_bucket", "profile", PROFILES),
        ("http_edge_refusals_total", "reason", {f"connection_{how}" for how in dropped} | codes),
        ("mails_total", "outcome", set(re.findall(r'outcome = "(\w+)"', mails))),
        ("ratelimit_decisions_total", "outcome", {"allowed", "denied"}),
        ("ratelimit_decisions_total", "degraded", {"true", "false"}),
        ("reports_finished_total", "status", {str(each) for each in ReportStatus}),
        ("reports_finished_total", "error_code", {str(each) for each in ReportFailure}),
        ("auth_operations_total", "operation", set(re.findall(r'(?:@counted|\.count)\("(\w+)"', source))),
        ("auth_operations_total", "status", {"ok", "error", *re.findall(r'\.count\("\w+", "(\w+)"', source)} | codes),
    ):
        exported.values[name, label] = values
    return exported


async def compose(folder: Path) -> Exported:
    exported = Exported()
    settings = WorkerSettings()
    of_worker = build_registry(name="worker", version="1", environment="test")
    of_relay = build_registry(name="relay", version="1", environment="test")
    observability = Observability(settings.observability, of_worker)
    create_worker(settings, observability)
    build_runtime(settings, observability)
    async with open_relay(settings, Observability(settings.observability, of_relay), Heartbeat(folder / "heartbeat")):
        exported.add(of_relay)
    api_settings = ApiSettings()
    app = create_app(api_settings)
    app.build_middleware_stack()  # which registers the metrics of requests
    of_api: CollectorRegistry = app.state.registry
    Edge(api_settings.server, max_connections=1, hsts=False, registry=of_api)
    for registry in (of_worker, of_api):
        for collector in [*registry._collector_to_names]:
            if isinstance(collector, PrometheusCacheMetrics):
                collector.seconds("cache_l2_seconds", "get")  # as the first request to Redis does
        exported.add(registry)
    routes = {*app.openapi()["paths"], "/metrics"}
    for name in ("http_requests_total", "http_request_duration_seconds_bucket", "http_request_duration_seconds_count"):
        exported.values[name, "route"] = routes
    return exported


def test_the_series_of_an_expression_are_found() -> None:
    """Functions, labels, durations and strings are no series; a recorded series has colons in its name."""
    text = (
        'sum by (le, task) (rate(a_total{x="b_c", y=~"d|e"}[5m])) / f unless g offset 15m and absent(h{z!~"[i]"}) > 0.5'
        " or k:l:rate5m"
    )
    found = [("a_total", {"x": "b_c", "y": "d|e"}), ("f", {}), ("g", {}), ("h", {"z": "[i]"}), ("k:l:rate5m", {})]
    assert list(selectors(text)) == found


@pytest.mark.parametrize(
    ("matchers", "known"),
    [
        ({"status": "5.."}, True),
        ({"status": "200|404"}, True),
        ({"status": "200|nonsense"}, False),
        ({"status": "6.."}, False),
        ({"route": "/metrics"}, True),
        ({"route": "/nowhere"}, False),
    ],
)
def test_label_values_that_cannot_occur_are_found(matchers: dict[str, str], known: bool, exported: Exported) -> None:
    """Each alternative of a matcher has to match a status or route that a response can have."""
    assert all(exported.knows("http_requests_total", *each) for each in matchers.items()) is known


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_reads_series_that_exist(expression: str, exported: Exported) -> None:
    """Each series is exported or recorded, has the labels that are matched and grouped by, and their values."""
    read = list(selectors(expression))
    assert read
    labels: Mapping[str, set[str]] = {**exported.labels, **{name: set() for name in RECORDED}}
    for name, matchers in read:
        assert name in labels, name
        assert set(matchers) <= labels[name] | OF_A_SCRAPE, name
        for label, pattern in matchers.items():
            assert label in OF_A_SCRAPE or exported.knows(name, label, pattern), (name, label, pattern)
    assert grouped(expression) <= OF_A_SCRAPE.union(*(labels[name] for name, _ in read))


def test_each_service_is_a_command_that_names_itself() -> None:
    """The services of the rules are those under which the commands configure observability."""
    worker = (ROOT / "apps/worker/src/tequipy_worker/cli.py").read_text()
    api = (ROOT / "apps/api/src/tequipy_api/app.py").read_text()
    named = re.findall(r'_observe\(settings, "(\w+)"', worker) + re.findall(r'service="(\w+)"', api)
    assert set(named) >= SERVICES


def test_the_dashboards_show_every_metric_of_ours(exported: Exported) -> None:
    """Each metric of ours has a panel, or is recorded in a series that has one."""
    drawn = [target["expr"] for panel in panels() for target in panel["targets"]]
    recorded = [rule["expr"] for rule in RULES if "record" in rule]
    shown = {name for expression in (*drawn, *recorded) for name, _ in selectors(expression)}
    ours = {name for name in exported.labels if not name.startswith(OF_LIBRARIES)}
    assert len(ours) >= 60
    assert {name for name in ours - shown if not name.endswith(("_sum", "_count", "_created"))} == set()


def test_every_recorded_series_is_read() -> None:
    """Each recorded series is read by an alert, a panel or another recorded series."""
    assert {name for expression in expressions() for name, _ in selectors(expression)} >= RECORDED


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_imported(name: str) -> None:
    """Ids, places and names of panels are unique; each uses the chosen data source; its uid is its file's name."""
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"tequipy-{name}"
    everything = dashboard["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    cells = [
        (x, y)
        for panel in everything
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells), "no panel covers another"
    assert max(x for x, _ in cells) < 24, "Grafana's grid has 24 columns"
    assert {json.dumps(panel["datasource"]) for panel in panels(name)} == {
        json.dumps({"type": "prometheus", "uid": "${datasource}"})
    }


def test_names_are_used_once() -> None:
    """No two dashboards have the same title, and no two panels of one type in a dashboard."""
    titles = [(name, panel["type"], panel["title"]) for name in DASHBOARDS for panel in panels(name)]
    assert len(set(titles)) == len(titles)
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)

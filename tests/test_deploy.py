"""deploy/: alert rules and dashboard name series and labels that exist, and the runbook explains each alert."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client import CollectorRegistry

from tequipy_api.cli import main as api_command
from tequipy_observability.celery.metrics import _OUTCOMES
from tequipy_observability.metrics import build_registry
from tequipy_observability.wiring import Observability
from tequipy_worker.app import build_runtime, create_worker, open_relay
from tequipy_worker.cli import main as worker_command
from tequipy_worker.heartbeat import Heartbeat
from tequipy_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus/alerts-worker.yaml"
RULE_TESTS = DEPLOY / "prometheus/tests/alerts-worker.test.yaml"
DASHBOARD = DEPLOY / "grafana/worker.json"
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
PROMTOOL = shutil.which("promtool")
OUTCOMES = {*_OUTCOMES.values(), "lost", "timed_out", "refused"}
SERVICES = {"worker", "beat", "relay"}
OF_A_SCRAPE = {"job", "instance"}
WORDS = {"by", "on", "or", "and", "unless", "offset", "group_left", "group_right", "without", "ignoring", "bool"}
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
SETTINGS = {
    "ENVIRONMENT": "test",
    "PUBLIC_URL": "https://app.example.com",
    "DATABASE__URL": "postgresql+asyncpg://app@127.0.0.1:1/app",
    "CACHE__URL": "redis://127.0.0.1:1/0",
    "CELERY__BROKER_URL": "redis://127.0.0.1:1/1",
    "MAIL__SMTP_URL": "smtp://127.0.0.1:1",
}


@pytest.fixture
async def labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, set[str]]:
    """Return the labels of each series of worker and relay; none of a custom collector, which has no list of them."""
    monkeypatch.chdir(tmp_path)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"TEQUIPY_{name}", value)
    settings = WorkerSettings()
    of_worker = build_registry(name="worker", version="1", environment="test")
    of_relay = build_registry(name="relay", version="1", environment="test")
    observability = Observability(settings.observability, of_worker)
    create_worker(settings, observability)
    build_runtime(settings, observability)
    heartbeat = Heartbeat(tmp_path / "heartbeat")
    async with open_relay(settings, Observability(settings.observability, of_relay), heartbeat):
        return {**series(of_worker), **series(of_relay)}


def series(registry: CollectorRegistry) -> dict[str, set[str]]:
    declared = {
        name: set(getattr(collector, "_labelnames", ()))
        for collector, names in registry._collector_to_names.items()
        for name in names
    }
    return {
        f"{family.name}{suffix}": declared.get(family.name, set()) | ({"le"} if suffix == "_bucket" else set())
        for family in registry.collect()
        for suffix in SUFFIXES.get(family.type, [""])
    }


def expressions() -> Iterator[str]:
    yield from (alert["expr"] for alert in ALERTS)
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and matchers of each series that a PromQL expression reads."""
    text = re.sub(r"\b(by|on|group_left|without|ignoring)\s*\([^)]*\)", " ", expression)
    text = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", text)
    for match in re.finditer(r"([a-z_]\w*)(\{[^}]*\})?(\s*\()?", re.sub(r'"[^"]*"', lambda m: m[0].upper(), text)):
        if match[3] is None and match[1] not in WORDS:
            yield (
                match[1],
                {name: value.lower() for name, value in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', match[2] or "")},
            )


def grouped(expression: str) -> set[str]:
    """Return the labels by which an expression groups or joins."""
    lists = re.findall(r"\b(?:by|on|group_left|without|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for names in lists for label in names.split(",")}


def test_the_series_of_an_expression_are_found() -> None:
    """Functions, labels, durations and strings are no series."""
    text = (
        'sum by (le, task) (rate(a_total{x="b_c", y=~"d|e"}[5m])) / f unless g offset 15m and absent(h{z!="i"}) > 0.5'
    )
    found = [("a_total", {"x": "b_c", "y": "d|e"}), ("f", {}), ("g", {}), ("h", {"z": "i"})]
    assert list(selectors(text)) == found


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_reads_series_that_exist(expression: str, labels: dict[str, set[str]]) -> None:
    """Each series is exported by worker or relay, has the labels that are matched and grouped by, and their values."""
    read = list(selectors(expression))
    assert read
    for name, matchers in read:
        assert name in labels, name
        assert set(matchers) <= labels[name] | OF_A_SCRAPE, name
        for label, known in (("outcome", OUTCOMES), ("service", SERVICES)):
            assert set(filter(None, matchers.get(label, "").split("|"))) <= known
    assert grouped(expression) <= OF_A_SCRAPE.union(*(labels[name] for name, _ in read))


def test_each_service_is_a_command_that_names_itself() -> None:
    """The services of the rules are those under which the commands configure observability."""
    source = (ROOT / "apps/worker/src/tequipy_worker/cli.py").read_text()
    assert set(re.findall(r'_observe\(settings, "(\w+)"', source)) >= SERVICES


def test_the_dashboard_shows_every_metric_of_queues_and_tasks(labels: dict[str, set[str]]) -> None:
    """Each metric of outbox, queues, scheduler and tasks has a panel; panels have ids and places of their own."""
    shown = {name for panel in panels() for target in panel["targets"] for name, _ in selectors(target["expr"])}
    prefixes = ("outbox_", "queue_", "messages_", "dead_letters", "scheduler_", "task_", "mails_")
    ours = {name for name in labels if name.startswith(prefixes)}
    assert len(ours) >= 15
    assert {name for name in ours - shown if not name.endswith(("_sum", "_count", "_created"))} == set()
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert len({json.dumps(panel["gridPos"]) for panel in panels()}) == len(panels())


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_a_section_of_the_runbook_with_three_steps(alert: dict[str, Any]) -> None:
    """The annotation leads to a section of that name, which says what it means, and lists at least three steps."""
    name = alert["alert"]
    assert alert["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    assert alert["labels"]["severity"] in {"page", "ticket"}
    (section,) = re.findall(rf"^### {name}\n(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^(\d)\. .*`", section, re.MULTILINE)[:3] == ["1", "2", "3"], (
        "each step names a command or panel"
    )


def test_every_alert_is_tested() -> None:
    """The unit tests of the rules show each alert raised at one time, and silent at another."""
    tests = [case for test in yaml.safe_load(RULE_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    for raised in (True, False):
        assert {case["alertname"] for case in tests if bool(case.get("exp_alerts")) is raised} == {
            alert["alert"] for alert in ALERTS
        }


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.skipif(PROMTOOL is None, reason="apt-get install prometheus")
@pytest.mark.parametrize("command", [["check", "rules", RULES], ["test", "rules", RULE_TESTS]], ids=["check", "test"])
def test_promtool_accepts_the_rules(command: list[str | Path]) -> None:
    """promtool finds no fault in the rules, and their unit tests pass."""
    result = subprocess.run(
        [str(PROMTOOL), *command], capture_output=True, text=True, check=False, timeout=60, cwd=RULE_TESTS.parent
    )
    assert result.returncode == 0, result.stdout + result.stderr


COMMANDS = sorted(set(re.findall(r"^(?:\d\. +)?(?:\$ )?(tequipy-[^`\n#]+)|`(tequipy-[^`\n]+)`", RUNBOOK, re.MULTILINE)))


@pytest.mark.parametrize("line", sorted({(first or second).strip() for first, second in COMMANDS}))
def test_a_command_of_the_runbook_exists(line: str) -> None:
    """Each command that the runbook names is one of ours, with arguments that it accepts."""
    program, *words = shlex.split(line)
    words = ["01900000-0000-7000-8000-000000000000" if word == "ID" else word for word in words]
    command: click.Command = {"tequipy-api": api_command, "tequipy-worker": worker_command}[program]
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, line
        command, words = found, words[1:]
    command.make_context(line, words, resilient_parsing=False)

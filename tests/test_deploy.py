"""deploy/: each alert is tested by promtool, and the runbook explains each alert and dashboard."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from tequipy_api.settings import ApiSettings
from tequipy_devstack.servers import PostgresServer
from tequipy_platform.settings.unknown_names import unknown_exported

from .command_lines import check_command
from .promql import ALERTS, DASHBOARDS, ROOT, RULE_FILES, RULE_TESTS, failures_of_calls, panels

RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
PROMTOOL = shutil.which("promtool")
STEPS = ["1", "2", "3"]


def section_of(heading: str) -> str:
    """Return the one section of the runbook with this heading."""
    (section,) = re.findall(rf"^### {heading}\n(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    return str(section)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_a_section_of_the_runbook_with_three_steps(alert: dict[str, Any]) -> None:
    """The annotation leads to a section of that name, which says what it means, and lists at least three steps."""
    name = alert["alert"]
    assert alert["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    assert alert["labels"]["severity"] in {"page", "ticket"}
    section = section_of(name)
    assert not section.lstrip().startswith("1."), "it begins with the meaning"
    assert re.findall(r"^(\d)\. .*`", section, re.MULTILINE)[:3] == STEPS, "each step names a command or panel"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_a_section_of_the_runbook_with_three_steps(name: str) -> None:
    """The description leads to a section with the title of the dashboard, which lists three steps of reading it."""
    dashboard = DASHBOARDS[name]
    title = dashboard["title"]
    assert dashboard["description"].endswith(f"docs/runbook.md#{title.lower().replace(' ', '-')}")
    assert re.findall(r"^(\d)\. .*`", section_of(title), re.MULTILINE)[:3] == STEPS, "each step names a panel"


def test_every_section_of_the_runbook_belongs_to_an_alert_or_dashboard() -> None:
    """No section is left of an alert or dashboard that was removed or renamed."""
    titles = [dashboard["title"] for dashboard in DASHBOARDS.values()]
    assert sorted(re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE)) == sorted(
        [*(alert["alert"] for alert in ALERTS), *titles]
    )


def test_links_to_sections_of_the_runbook_lead_to_one() -> None:
    """Each link to a section of the runbook, from itself or from another page, names the anchor of a heading."""
    pages = [path.read_text(encoding="utf-8") for path in ROOT.glob("docs/**/*.md")]
    linked = {anchor for page in pages for anchor in re.findall(r"\(runbook\.md#([^)]+)\)", page)}
    linked |= set(re.findall(r"\(#([^)]+)\)", RUNBOOK))
    assert len(linked) > 10
    headings = re.findall(r"^##+ (.+)$", RUNBOOK, re.MULTILINE)
    assert linked <= {heading.lower().replace(" ", "-") for heading in headings}


def test_the_panels_that_the_runbook_names_exist() -> None:
    """Each panel that the runbook names is in a dashboard."""
    named = re.findall(r"\bpanels? `([^`]+)`", RUNBOOK)
    assert len(named) > 10
    assert set(named) <= {panel["title"] for panel in panels()}


def test_the_events_and_metrics_that_the_runbook_names_exist() -> None:
    """Each name in snake_case that the runbook quotes is in the source of a package or app."""
    paths = [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("apps/*/src/**/*.py")]
    words = {word for path in paths for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    quoted = set(re.findall(r"`((?!pg_)[a-z]+(?:_[a-z0-9]+)+)`", RUNBOOK))
    assert len(quoted) > 10
    assert {name for name in quoted if words.isdisjoint({name, name.removesuffix("_total")})} <= failures_of_calls()


@pytest.mark.parametrize("statement", re.findall(r"`(SELECT [^`]+)`", RUNBOOK))
def test_a_query_of_the_runbook_runs(statement: str, postgres_server: PostgresServer, database_url: str) -> None:
    """PostgreSQL runs each query of the runbook on our tables."""
    postgres_server.execute(statement, database=str(make_url(database_url).database))


def test_the_settings_that_runbook_and_dashboards_name_exist() -> None:
    """Each variable that the runbook or a dashboard names is a setting of an app."""
    texts = [RUNBOOK, *(path.read_text() for path in RULE_FILES), *(str(each) for each in DASHBOARDS.values())]
    named = {name for text in texts for name in re.findall(r"TEQUIPY_[A-Z0-9_]+", text)}
    assert len(named) > 5
    assert unknown_exported(ApiSettings, "TEQUIPY_", dict.fromkeys(named, "")) == []


def test_every_alert_is_tested() -> None:
    """The unit tests of the rules show each alert raised at one time, and silent at another."""
    for rules, tests in RULE_TESTS.items():
        groups = yaml.safe_load(rules.read_text())["groups"]
        alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
        cases = [case for test in yaml.safe_load(tests.read_text())["tests"] for case in test["alert_rule_test"]]
        for raised in (True, False):
            assert {case["alertname"] for case in cases if bool(case.get("exp_alerts")) is raised} == alerts, tests.name


def test_an_alert_has_one_name() -> None:
    """No two alerts have the same name, by which the runbook is searched."""
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.skipif(PROMTOOL is None, reason="apt-get install prometheus")
@pytest.mark.parametrize("rules", RULE_FILES, ids=lambda path: path.stem)
def test_promtool_accepts_the_rules(rules: Path) -> None:
    """promtool finds no fault in the rules, and their unit tests pass."""
    tests = RULE_TESTS[rules]
    for kind, file in (("check", rules), ("test", tests)):
        result = subprocess.run(
            [str(PROMTOOL), kind, "rules", str(file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tests.parent,
        )
        print(result.stdout)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.skipif(PROMTOOL is None, reason="apt-get install prometheus")
def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    """promtool finds no fault in the configuration of compose.yaml's Prometheus, which loads every file of rules."""
    folder, token = tmp_path / "prometheus", tmp_path / "token"
    shutil.copytree(ROOT / "deploy/prometheus", folder)
    token.touch()
    file = folder / "prometheus.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("/run/tequipy/metrics-token", str(token)))
    command = [str(PROMTOOL), "check", "config", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"SUCCESS: {len(RULE_FILES)} rule files found" in result.stdout


COMMANDS = sorted(set(re.findall(r"^(?:\d\. +)?(?:\$ )?(tequipy-[^`\n#]+)|`(tequipy-[^`\n]+)`", RUNBOOK, re.MULTILINE)))


@pytest.mark.parametrize("line", sorted({(first or second).strip() for first, second in COMMANDS}))
def test_a_command_of_the_runbook_exists(line: str) -> None:
    """Each command that the runbook names is one of ours, with arguments that it accepts."""
    check_command(["01900000-0000-7000-8000-000000000000" if word == "ID" else word for word in shlex.split(line)])

"""The rules and dashboards of deploy/, and the series that a PromQL expression reads."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from tequipy_platform.http import AddressRefused  # noqa: F401 -- its module defines further errors of calls

E = TypeVar("E", bound=BaseException)

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy/prometheus"
RULE_FILES = sorted(PROMETHEUS.glob("alerts-*.yaml"))
RULE_TESTS = {path: PROMETHEUS / f"tests/{path.stem}.test.yaml" for path in RULE_FILES}
"""The unit tests of each file."""
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(ROOT.glob("deploy/grafana/*.json"))
}
RULES: list[dict[str, Any]] = [
    rule for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}

_WORDS = {"by", "on", "or", "and", "unless", "offset", "group_left", "group_right", "without", "ignoring", "bool"}
_LISTS = r"\b(?:by|on|group_left|without|ignoring)\s*\(([^)]*)\)"
_STRING_OR_TIME = r'"[^"]*"|\[[^\]]*\]|\boffset\s+\w+'


def panels(dashboard: str | None = None) -> list[dict[str, Any]]:
    """Return the panels of a dashboard, or of all, without the rows that only group them."""
    chosen = DASHBOARDS.values() if dashboard is None else [DASHBOARDS[dashboard]]
    return [panel for each in chosen for panel in each["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Yield each expression of a rule or panel."""
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and matchers of each series that a PromQL expression reads; the values are in lower case."""
    text = re.sub(_LISTS, " ", expression)
    text = re.sub(_STRING_OR_TIME, lambda match: match[0].upper() if match[0].startswith('"') else " ", text)
    for match in re.finditer(r"([a-z_][\w:]*)(\{[^}]*\})?(\s*\()?", text):
        if match[3] is None and match[1] not in _WORDS:
            matchers = re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', match[2] or "")
            yield match[1], {name: value.lower() for name, value in matchers}


def grouped(expression: str) -> set[str]:
    """Return the labels by which an expression groups or joins."""
    lists = re.findall(_LISTS, expression)
    return {label.strip() for names in lists for label in names.split(",")}


def subclasses(kind: type[E]) -> Iterator[type[E]]:
    """Yield all direct and indirect subclasses."""
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def failures_of_calls() -> set[str]:
    """Return the outcomes of calls by the HTTP client that end without a response."""
    names = [error.__name__ for error in subclasses(httpx.TransportError)]
    return {"cancelled", *(re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower() for name in names)}

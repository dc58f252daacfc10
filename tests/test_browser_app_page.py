"""docs/how-to/browser-app.md says what the example of a front end does, and what the API needs."""

import re

import pytest

from tequipy_auth.domain.value_objects import Purpose
from tequipy_devstack.pages.front_end import MAILED_PATHS
from tequipy_devstack.stack import USUAL_PORTS

from .public_modules import ROOT

PAGE = (ROOT / "docs/how-to/browser-app.md").read_text(encoding="utf-8")
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "examples/spa").iterdir()}
PURPOSES = {purpose.value for purpose in Purpose}


@pytest.mark.parametrize("block", re.findall(r"```js\n(.*?)```", PAGE, flags=re.DOTALL))
def test_the_code_of_the_page_is_that_of_the_example(block: str) -> None:
    """Each block of JavaScript is a part of the example, which a test runs in Chromium."""
    assert any(block in source for source in SOURCES.values())


def test_each_mailed_link_has_a_path() -> None:
    """The page, the example and its server know the purposes of all links that auth mails, and no other ones."""
    assert set(re.findall(r"^\| `/([a-z-]+)` \|", PAGE, flags=re.MULTILINE)) == PURPOSES
    assert set(re.findall(r'^  "([a-z-]+)": \{', SOURCES["app.js"], flags=re.MULTILINE)) == PURPOSES
    assert {f"/{purpose}" for purpose in PURPOSES} == MAILED_PATHS


def test_each_route_of_a_link_is_in_the_contract() -> None:
    """The routes that the page and the example name exist."""
    contract = (ROOT / "apps/api/openapi.json").read_text(encoding="utf-8")
    listed = set(re.findall(r"\| `(/[a-z/-]+)` \|$", PAGE, flags=re.MULTILINE))
    called = set(re.findall(r'path: "/auth(/[a-z/-]+)"', SOURCES["app.js"]))
    assert listed == called
    assert [route for route in listed if f'"/api/v1/auth{route}"' not in contract] == []


def test_the_example_shows_the_login_after_the_codes_of_the_page() -> None:
    """After each code of a refused refresh that the page lists for it, the example shows the login."""
    rows = re.findall(r"^\| (`refresh_.*?) \| .* \| shows the login \|$", PAGE, flags=re.MULTILINE)
    (ended,) = re.findall(r"ENDED = \[(.*?)\]", SOURCES["session.js"])
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(re.findall(r'"(\w+)"', ended))


def test_the_ports_of_development_servers_are_those_of_the_stack() -> None:
    """The page lists the ports that `make dev` allows."""
    *others, last = USUAL_PORTS
    assert f"{', '.join(map(str, others))} and {last}" in PAGE


def test_the_example_loads_nothing_from_elsewhere() -> None:
    """No file of the example names another host than this machine."""
    for name, source in SOURCES.items():
        assert re.findall(r"//[a-z0-9.-]+\.[a-z]{2,}", source) == [], name

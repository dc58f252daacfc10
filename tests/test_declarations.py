"""Packages declare their own names: lower packages know no name of a higher one, and header names are defined once."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from tequipy_api.histories import HISTORIES
from tequipy_api.settings import Database as ApiDatabase
from tequipy_auth import CACHE_POLICIES
from tequipy_auth.api import RATE_POLICIES
from tequipy_auth.api.routes import router, well_known_router
from tequipy_caching.cache.policies import DEFAULT_POLICIES
from tequipy_worker.settings import Database as WorkerDatabase

from .public_modules import PACKAGES

ROOT = Path(__file__).parents[1]
LOWER = ["observability", "platform", "caching"]
OF_AN_APP = re.compile(r"tequipy-api|tequipy-worker|TEQUIPY_[A-Z_]+?__")
"""The apps' commands, and variables of a section. The prefix `TEQUIPY_` alone is a setting of the settings loader, and
`TEQUIPY_DEV_…` its exception for the local stack."""
HEADERS = ["X-Correlation-ID", "X-Requested-With", "tequipy_correlation_id", "RateLimit", "RateLimit-Policy"]
"""Names of headers that several modules use; the standard names of RFC 9110 need no constant."""


def strings(path: Path) -> Iterator[str]:
    """Yield the constant strings of a module, in bytes too, but no documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documentation:
            if isinstance(node.value, bytes):
                yield node.value.decode("latin-1")
            elif isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("package", LOWER)
def test_a_lower_package_names_nothing_of_auth(package: str) -> None:
    """No foundation package contains the name of a cache, rate policy or route of auth."""
    # Auth keeps its roles in `config`, a cache that is built into every manager.
    names = {*CACHE_POLICIES, *RATE_POLICIES} - DEFAULT_POLICIES.keys()
    paths = {context.path for each in (router, well_known_router) for context in iter_route_contexts(each.routes)}
    assert len(names) > 4
    assert "/login" in paths
    for module in sorted(ROOT.glob(f"packages/{package}/src/**/*.py")):
        found = [text for text in strings(module) if text in names or "/auth" in text or text in paths]
        assert found == [], module


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_names_no_command_and_no_variable_of_an_app(package: str) -> None:
    """No string of a package, documentation included, contains an app's command or the full name of a variable."""
    modules = sorted(ROOT.glob(f"packages/{package}/src/**/*.py"))
    assert len(modules) > 1
    found = {
        f"{module.relative_to(ROOT)}: {match[0]}"
        for module in modules
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in OF_AN_APP.finditer(node.value)
    }
    assert found == set()


def test_auth_declares_the_policy_of_each_of_its_caches() -> None:
    """Auth's list includes the cache of the roles, with the policy that every cache manager has for that name."""
    assert CACHE_POLICIES["config"] == DEFAULT_POLICIES["config"]


def test_both_apps_know_the_schemas_of_all_histories() -> None:
    """The schemas that may be renamed are those that the migrations create."""
    schemas = {history.schema for history in HISTORIES}
    assert ApiDatabase.known_schemas == WorkerDatabase.known_schemas == schemas


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_has_one_constant(name: str) -> None:
    """The name of a header that several modules use is written in one place of the sources; clients import none."""
    ignored = {"migrations", "conformance", "clients"}
    modules = [path for path in ROOT.glob("*/*/src/**/*.py") if ignored.isdisjoint(path.relative_to(ROOT).parts)]
    spellings = {name, name.lower()} if "-" in name else {name}
    places = [path for path in modules for text in strings(path) if text in spellings]
    assert len(places) == 1, places

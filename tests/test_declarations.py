"""Packages declare their own names: lower packages know no name of a higher one, and header names are defined once."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from tequipy_auth import CACHE_POLICIES
from tequipy_auth.api import RATE_POLICIES
from tequipy_auth.api.routes import router, well_known_router

ROOT = Path(__file__).parents[1]
LOWER = ["observability", "platform", "caching"]
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
    names = {*CACHE_POLICIES, *RATE_POLICIES}
    paths = {context.path for each in (router, well_known_router) for context in iter_route_contexts(each.routes)}
    assert len(names) > 4
    assert "/login" in paths
    for module in sorted(ROOT.glob(f"packages/{package}/src/**/*.py")):
        found = [text for text in strings(module) if text in names or "/auth" in text or text in paths]
        assert found == [], module


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_has_one_constant(name: str) -> None:
    """The name of a header that several modules use is written in one place of the sources."""
    modules = [path for path in ROOT.glob("*/*/src/**/*.py") if {"migrations", "conformance"}.isdisjoint(path.parts)]
    spellings = {name, name.lower()} if "-" in name else {name}
    places = [path for path in modules for text in strings(path) if text in spellings]
    assert len(places) == 1, places

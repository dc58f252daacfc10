"""A public module exports what importers use: every name has an importer, stands in the README, or has a reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .public_modules import PACKAGES, ROOT, public_modules, sources_of

# Private modules whose names are exported as a group, and why. The README names the group, not each member.
GROUPS = {
    "tequipy_auth.conformance.*": "cases, which `from tequipy_auth.conformance import *` collects",
    "tequipy_auth.domain.audit": "the rows of `auth.audit_log.stream`",
    "tequipy_auth.domain.entities": "what the ports of an importer's own storage store and load",
    "tequipy_auth.domain.exceptions": "errors, which an importer catches",
    "tequipy_auth.domain.hashing": "an argument of the port `PasswordHasher`",
    "tequipy_auth.domain.lockout": "a port, which an importer implements",
    "tequipy_auth.domain.ports": "ports, which an importer implements",
    "tequipy_auth.domain.repositories": "ports, which an importer implements",
    "tequipy_auth.domain.services.*": "the types of the attributes of `Auth`",
    "tequipy_auth.domain.value_objects": "arguments and results of the services",
    "tequipy_auth.testing.*": "fakes, each named after its port",
    "tequipy_reporting.domain.activity": "arguments and results of the ports",
    "tequipy_reporting.domain.exceptions": "errors, which an importer catches",
    "tequipy_reporting.domain.ports": "ports, which an importer implements",
    "tequipy_reporting.domain.reports": "arguments and results of the services",
    "tequipy_reporting.domain.repositories": "ports, which an importer implements",
    "tequipy_reporting.domain.services.*": "the types of the attributes of `Reporting`",
    "tequipy_reporting.testing.*": "fakes, each named after its port",
    "tequipy_caching.conformance.*": "cases, which `from tequipy_caching.conformance import *` collects",
}


def exported(path: Path) -> list[str]:
    """Return the `__all__` of a module."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise AssertionError(f"{path} has no __all__")


def imports_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of each `from module import name` in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def imports_from_other_packages(package: str) -> set[tuple[str, str]]:
    """Return module and name of all imports of a package's modules in the sources of other packages and apps."""
    sources = [path for path in ROOT.glob("*/*/src") if path.parent != ROOT / "packages" / package]
    return {
        (module, name)
        for source in sources
        for path in source.rglob("*.py")
        for module, name in imports_of(path)
        if module.partition(".")[0] == f"tequipy_{package}"
    }


def documented(package: str) -> set[str]:
    """Return the names in the code of a package's README, inline code included."""
    readme = (ROOT / f"packages/{package}/README.md").read_text(encoding="utf-8")
    return {name for code in re.findall(r"```.*?```|`[^`\n]+`", readme, re.DOTALL) for name in re.findall(r"\w+", code)}


def group_of(path: Path, name: str) -> str | None:
    """Return the group of a name by the module that its public module imports it from, or None."""
    origin = next((module for module, imported in imports_of(path) if imported == name), "")
    return next((group for group in (origin, f"{origin.rpartition('.')[0]}.*") if group in GROUPS), None)


def unexplained(package: str) -> Iterator[tuple[str, Path, str]]:
    """Yield public module, its file and each exported name that no other package imports and no README names."""
    imported, in_readme = imports_from_other_packages(package), documented(package)
    for module in public_modules(package):
        path = sources_of(package)[module]
        for name in exported(path):
            if (module, name) not in imported and name not in in_readme:
                yield module, path, name


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_reason(package: str) -> None:
    """Each name in the `__all__` of a public module is imported elsewhere, documented, or in a group with a reason."""
    assert [f"{module}.{name}" for module, path, name in unexplained(package) if group_of(path, name) is None] == []


def test_every_group_is_needed() -> None:
    """No group is left over after its names got importers or were removed."""
    needed = {group_of(path, name) for package in PACKAGES for _, path, name in unexplained(package)}
    assert sorted(set(GROUPS) - needed) == []


def builders(package: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the names and definitions of all functions of a package that build one of its parts."""
    for module, path in sources_of(package).items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("build_"):
                yield f"{module}.{node.name}", node


@pytest.mark.parametrize("package", PACKAGES)
def test_builders_have_one_form(package: str) -> None:
    """Settings are the first argument of a builder, and a registry is a keyword that may be omitted."""
    for name, function in builders(package):
        arguments, keywords = function.args.args, function.args.kwonlyargs
        assert "settings" not in [each.arg for each in [*arguments[1:], *keywords]], name
        assert "registry" not in [each.arg for each in arguments], name
        for keyword, default in zip(keywords, function.args.kw_defaults, strict=True):
            if keyword.arg == "registry":
                assert ast.unparse(keyword.annotation or keyword) == "CollectorRegistry | None", name
                assert isinstance(default, ast.Constant), name
                assert default.value is None, name

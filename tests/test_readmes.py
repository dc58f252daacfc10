"""The READMEs of the packages: when to use each, and every parameter of its public functions, as in the code."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from importlib import import_module

import pytest

from tequipy_caching import CachePolicy, RatePolicy

from .public_modules import PACKAGES, ROOT, public_modules

SECTIONS = ("Install", "When to use it", "Example", "Public modules", "Parameters")
WIRING = ("build_", "wire_", "configure_")


def readme(package: str) -> str:
    """Return the README of a package."""
    return (ROOT / f"packages/{package}/README.md").read_text(encoding="utf-8")


def short(text: str) -> str:
    """Return an annotation or a value without the names of modules."""
    return re.sub(r"\b[a-z_][\w.]*\.(?=\w)", "", text)


def parameters(package: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield function, parameter, type and default of each function of a package that builds or attaches something."""
    for module in public_modules(package):
        exported = import_module(module) if "conformance" not in module else None
        for name in [each for each in getattr(exported, "__all__", ()) if each.startswith(WIRING)]:
            for parameter in inspect.signature(getattr(exported, name)).parameters.values():
                several = parameter.kind is parameter.VAR_POSITIONAL
                default = "required" if parameter.default is parameter.empty else f"`{short(repr(parameter.default))}`"
                yield (
                    f"{module.removeprefix(f'tequipy_{package}.')}.{name}",
                    f"*{parameter.name}" if several else parameter.name,
                    short(inspect.formatannotation(parameter.annotation)),
                    "" if several else default,
                )


def documented_parameters(package: str) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table of parameters; a row without a function belongs to the one above."""
    _, _, table = readme(package).partition("| function | parameter | type | default | meaning |\n")
    found, function = [], ""
    for line in table.partition("\n\n")[0].splitlines()[1:]:
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        function = cells[0].strip("`") or function
        assert cells[4], line
        found.append((function, cells[1].strip("`"), cells[2].strip("`"), cells[3]))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_the_sections_of_a_readme(package: str) -> None:
    """A README says in its first line what it is, then how to install it, when to use it, and shows an example."""
    text = readme(package)
    title, first, why = text.split("\n\n")[:3]
    assert title == f"# tequipy-{package}"
    assert "\n" not in first
    assert len(why) > 80
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    wanted = [each for each in SECTIONS if each != "Parameters" or [*parameters(package)]]
    assert [each for each in wanted if each not in headings and each != "Example"] == []
    assert re.search(r"^Use something else ", text, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_parameter_is_documented(package: str) -> None:
    """The table of a README has the parameters of each public `build_*`, `wire_*` and `configure_*`, as in the code."""
    assert sorted(documented_parameters(package)) == sorted(parameters(package))


@pytest.mark.parametrize("policy", [CachePolicy, RatePolicy], ids=lambda each: each.__name__)
def test_every_field_of_a_policy_is_documented(policy: type[CachePolicy | RatePolicy]) -> None:
    """The table of a policy has its fields and their defaults."""
    _, _, table = readme("caching").partition(f"| field of `{policy.__name__}` | default |")
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", table.partition("\n\n")[0], re.MULTILINE)
    documented = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    defaults = {}
    for field in [each for each in fields(policy) if each.init]:
        value = field.default_factory() if field.default_factory is not MISSING else field.default
        defaults[field.name] = "required" if value is MISSING else f"`{value!r}`"
    assert documented == defaults

"""A public module that needs an extra names it when one of the extra's libraries is missing."""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import metadata, packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .public_modules import PACKAGES, ROOT

# A process for each library, which is forked before anything is imported. A module that is None in `sys.modules` is as
# good as not installed.
SCRIPT = """
import importlib, os, sys
module, requirement, *libraries = sys.argv[1:]
for library in libraries:
    if os.fork() == 0:
        sys.modules.update(dict.fromkeys(library.split(",")))
        try:
            importlib.import_module(module)
            print(library, "is not needed")
        except ImportError as error:
            if not str(error).endswith(f": install {requirement}"):
                print(library, error)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
# The extra of a function instead of a module; tests/test_packages.py calls it without the extra.
OF_A_FUNCTION = {("reporting", "worker")}


def requirements(package: str, extra: str | None) -> Iterator[Requirement]:
    """Yield what a package needs in any case, or what one of its extras adds."""
    for line in metadata(f"tequipy-{package}").get_all("Requires-Dist") or []:
        requirement = Requirement(line)
        of_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if of_extra == (extra is not None) and (
            not requirement.marker or requirement.marker.evaluate({"extra": extra or ""})
        ):
            yield requirement


def libraries(package: str, extra: str) -> set[str]:
    """Return the distributions that an extra adds to a package, those of its siblings' extras included."""
    found = set()
    for requirement in requirements(package, extra):
        found.add(requirement.name)
        if requirement.name.startswith("tequipy-"):
            sibling = requirement.name.removeprefix("tequipy-")
            found |= {library for each in requirement.extras for library in libraries(sibling, each)}
    return found - {each.name for each in requirements(package, None)}


@cache
def installed_modules() -> dict[str, list[str]]:
    """Return the top-level modules of each installed distribution."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            found[canonicalize_name(distribution)].append(module)
    return found


def modules_of(distribution: str) -> list[str]:
    """Return the top-level modules of a distribution; those of this workspace have no list."""
    return installed_modules()[canonicalize_name(distribution)] or [distribution.replace("-", "_")]


def modules_with_extras() -> list[tuple[str, str, str]]:
    """Return package, public module and extra of each row of the READMEs' tables that names an extra."""
    return [
        (package, module, extra)
        for package in PACKAGES
        for module, extra in re.findall(
            r"^\| `([\w.]+)` \(extra `(\w+)`\)", (ROOT / f"packages/{package}/README.md").read_text(), re.MULTILINE
        )
    ]


def test_every_extra_has_a_module() -> None:
    """Each extra that a package declares is named in the table of its README."""
    declared = {
        (package, extra)
        for package in PACKAGES
        for extra in metadata(f"tequipy-{package}").get_all("Provides-Extra") or []
    }
    assert {(package, extra) for package, _, extra in modules_with_extras()} | OF_A_FUNCTION == declared


@pytest.mark.parametrize(("package", "module", "extra"), modules_with_extras())
def test_a_missing_library_is_reported_with_its_extra(package: str, module: str, extra: str) -> None:
    """Without any one of the extra's libraries, the import fails with an error that names the extra."""
    found = [",".join(modules_of(name)) for name in sorted(libraries(package, extra))]
    assert found
    assert all(found)
    command = [sys.executable, "-c", SCRIPT, module, f"tequipy-{package}[{extra}]", *found]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110)
    assert (result.stdout, result.stderr) == ("", "")

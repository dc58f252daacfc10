"""Each package, installed from its wheel into a new environment: size, import times, the examples of its README."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from .public_modules import PACKAGES, ROOT, public_modules
from .readme_examples import Example, examples_of
from .wheels import build_wheels, find_uv, metadata_of

THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ("3.11", "3.12", "3.13")
ASK_APP = Path(__file__).with_name("ask_app.py")
TIMER = "import time; began = time.process_time(); import {}; print(time.process_time() - began)"
CASES = [
    pytest.param(python, package, quick, marks=[pytest.mark.quick] if quick else [])
    for python, quick in [(THIS_PYTHON, True), *((python, False) for python in PYTHONS)]
    for package in PACKAGES
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the wheels of this tree by the names of their packages; print the head of the table."""
    titles = ("Python", "package", "size", "import", "import all", "with [api]", "output of the example")
    print(f"\n{row(*titles)}", end="")
    return build_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the versions of the lock file."""
    file = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    options = ("--quiet", "--frozen", "--all-packages", "--all-extras", "--no-emit-workspace", "--no-hashes")
    text = run(find_uv(), "export", *options)
    file.write_text(text)
    return file


def run(*command: str | Path, cwd: Path = ROOT, variables: Mapping[str, str] | None = None) -> str:
    """Return the standard output of a program that succeeds; bytecode is written, as usual."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**environment, "UV_COMPILE_BYTECODE": "0", **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@cache
def find_python(version: str) -> str | None:
    """Return an interpreter of a version: this one, one on the path, or one of pyenv; some on the path do not run."""
    if version == THIS_PYTHON:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"{version}.*/bin/python{version}"))]
    works = (
        name
        for name in names
        if name and subprocess.run([name, "-c", ""], check=False, capture_output=True).returncode == 0
    )
    return next(works, None)


def requirements(wheels: Mapping[str, Path], name: str, extras: frozenset[str]) -> dict[str, set[str]]:
    """Return a package and all of this workspace that it needs, with their extras."""
    found = {name: set(extras)}
    for requirement in metadata_of(wheels[name]).requires_dist or []:
        wanted = not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and requirement.name in wheels:
            for sibling, more in requirements(wheels, requirement.name, frozenset(requirement.extras)).items():
                found.setdefault(sibling, set()).update(more)
    return found


class Environment:
    """A new environment, into which only wheels of this tree and what they require are installed."""

    def __init__(self, folder: Path, python: str, wheels: Mapping[str, Path], constraints: Path | None) -> None:
        self.folder, self.wheels = folder, wheels
        self.python = folder / "venv/bin/python"
        self._constraints = () if constraints is None else ("--constraint", constraints)
        run(find_uv(), "venv", "--quiet", "--python", python, folder / "venv")

    def install(self, name: str, *extras: str) -> None:
        """Install a package; its siblings are named by their files, because those of an index would not be ours."""
        lines = [
            f"{sibling}[{','.join(sorted(more))}] @ {self.wheels[sibling].as_uri()}"
            for sibling, more in requirements(self.wheels, name, frozenset(extras)).items()
        ]
        run(find_uv(), "pip", "install", "--quiet", "--python", self.python, *self._constraints, *lines)

    def size(self) -> str:
        """Return the number and size of the installed files, bytecode excluded."""
        files = (path for path in self.folder.glob("venv/lib/*/site-packages/**/*") if path.suffix != ".pyc")
        return f"{sum(path.stat().st_size for path in files if path.is_file()) / 1e6:.1f} MB"

    def import_time(self, modules: list[str]) -> str:
        """Return the processor time of an import, the better of two: the first one writes the bytecode."""
        times = [float(run(self.python, "-c", TIMER.format(", ".join(modules)), cwd=self.folder)) for _ in range(2)]
        return f"{min(times) * 1000:.0f} ms"

    def own_packages(self) -> set[str]:
        """Return the installed modules of this workspace."""
        return {path.name for path in self.folder.glob("venv/lib/*/site-packages/tequipy_*") if path.suffix == ""}

    def output(self, example: Example, addresses: Mapping[str, str]) -> list[str]:
        """Return the lines that an example prints, or the bodies of an app's responses."""
        file, code = self.folder / f"{example.name}.py", example.code
        for documented, address in addresses.items():
            code = code.replace(documented, address)
        file.write_text(code, encoding="utf-8")
        variables = {name: addresses.get(value, value) for name, value in example.variables.items()}
        paths = [path for path, _ in example.requests]
        return run(self.python, ASK_APP, file, *paths, cwd=self.folder, variables=variables).splitlines()


@pytest.mark.prove
@pytest.mark.parametrize(("python", "package", "quick"), CASES)
def test_a_package_alone_runs_the_examples_of_its_readme(
    tmp_path: Path,
    wheels: Mapping[str, Path],
    constraints: Path,
    python: str,
    package: str,
    quick: bool,
    redis_url: str,
    empty_database_url: str,
) -> None:
    """Installed alone, with the extra `api` only where an example uses it, a package runs the examples of its README.

    The quick form takes the versions of the lock file; the long one the newest, and measures.
    """
    interpreter = find_python(python)
    if interpreter is None:
        pytest.skip(f"CPython {python} is not installed")
    environment, name = Environment(tmp_path, interpreter, wheels, constraints if quick else None), f"tequipy-{package}"
    environment.install(name)
    assert environment.own_packages() == {each.replace("-", "_") for each in requirements(wheels, name, frozenset())}
    figures = ["", "", "", ""] if quick else measure(environment, package)
    addresses = {"redis://localhost:6379/0": redis_url, "postgresql+asyncpg://localhost/shop": empty_database_url}
    with_extra = False
    for example in sorted(examples_of(package), key=lambda each: "fastapi" in each.code):
        if "fastapi" in example.code and not with_extra:
            environment.install(name, "api")
            figures[3], with_extra = environment.size(), True
        lines = [line for line in environment.output(example, addresses) if not line.startswith('{"timestamp":')]
        shown = "\n".join(example.printed or [body for _, body in example.requests])
        assert re.fullmatch(re.escape(shown).replace("…", ".*"), "\n".join(lines)), lines
        print(f"\n{row(python, package, *figures, ' | '.join(lines)[:60])}", end="")


def measure(environment: Environment, package: str) -> list[str]:
    """Return size, import time of the root module, import time of what runs in production, and a place for more."""
    readme = (ROOT / f"packages/{package}/README.md").read_text(encoding="utf-8")
    modules = [
        name
        for name in public_modules(package)
        if f"| `{name}` (extra" not in readme and not name.endswith((".testing", ".migrations"))
    ]
    size = environment.size()
    return [size, environment.import_time([f"tequipy_{package}"]), environment.import_time(modules), ""]


def row(*cells: str) -> str:
    """Return a line of the table."""
    return " ".join(f"{cell:<{width}}" for cell, width in zip(cells, (7, 14, 10, 10, 11, 11, 0), strict=True))

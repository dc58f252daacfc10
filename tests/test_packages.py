"""Each package declares its dependencies: installed alone it can be imported, and it installs nothing unwanted."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .public_modules import FEATURES, PACKAGES, ROOT, public_modules, sources_of
from .wheels import find_uv

# package (with extras) → its public modules, and distributions that must not be installed with it
ALONE = {
    "tequipy-observability": (["tequipy_observability", "tequipy_observability.wiring"], ["fastapi", "celery"]),
    "tequipy-observability[api]": (["tequipy_observability.api"], ["celery"]),
    "tequipy-observability[celery]": (["tequipy_observability.celery"], ["fastapi", "opentelemetry"]),
    "tequipy-observability[otel]": (["tequipy_observability.testing"], ["fastapi", "celery"]),
    "tequipy-fonts": (["tequipy_fonts"], ["pydantic", "structlog"]),
    "tequipy-platform": (
        [
            "tequipy_platform",
            "tequipy_platform.settings",
            "tequipy_platform.database",
            "tequipy_platform.database.migrations",
            "tequipy_platform.messaging",
            "tequipy_platform.messaging.migrations",
            "tequipy_platform.mail",
            "tequipy_platform.tasks",
            "tequipy_platform.testing",
        ],
        ["fastapi", "celery", "redis", "obstore"],
    ),
    "tequipy-platform[api]": (["tequipy_platform.web"], ["celery"]),
    "tequipy-platform[celery]": (["tequipy_platform.messaging.celery"], ["fastapi"]),
    "tequipy-platform[http]": (["tequipy_platform.http", "tequipy_platform.testing.http"], ["fastapi", "celery"]),
    "tequipy-platform[storage]": (["tequipy_platform.storage"], ["fastapi", "celery", "httpx"]),
    "tequipy-caching": (
        ["tequipy_caching", "tequipy_caching.wiring", "tequipy_caching.testing"],
        ["sqlalchemy", "fastapi", "pytest"],
    ),
    "tequipy-caching[api]": (["tequipy_caching.api"], ["celery"]),
    "tequipy-caching[conformance]": (["tequipy_caching.conformance"], []),
    "tequipy-auth[conformance]": (["tequipy_auth.conformance"], []),
    **{
        f"tequipy-{name}": (
            [f"tequipy_{name}{module}" for module in ("", ".wiring", ".tasks", ".migrations", ".testing")],
            ["fastapi", "celery", "pytest"],
        )
        for name in FEATURES
    },
    **{f"tequipy-{name}[api]": ([f"tequipy_{name}.api"], ["celery"]) for name in FEATURES},
    "tequipy-api": (["tequipy_api.app"], ["celery", "pytest"]),
    "tequipy-worker": (["tequipy_worker.app"], ["fastapi", "starlette", "pytest", "opentelemetry"]),
    "tequipy-worker[otel]": (["tequipy_worker.app"], ["fastapi"]),
}
# Libraries that a requirement pins or requires by itself, and whose names it uses in its own interface.
PART_OF = {"pydantic_core": "pydantic", "starlette": "fastapi", "redis": "celery"}
APPS = ("tequipy_api", "tequipy_worker")


def test_every_public_module_is_imported_alone() -> None:
    """Each public module of the READMEs' tables is imported in an environment of its package alone."""
    imported = [name for modules, _ in ALONE.values() for name in modules if not name.startswith(APPS)]
    assert sorted(imported) == sorted(name for package in PACKAGES for name in public_modules(package))


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.parametrize("requirement", ALONE)
def test_a_package_declares_what_it_imports(requirement: str) -> None:
    """Installed alone from the lock file, the package's public modules can be imported without unneeded packages."""
    modules, absent = ALONE[requirement]
    name, _, extras = requirement.rstrip("]").partition("[")
    code = f"""
import importlib, importlib.util
for module in {modules}:
    importlib.import_module(module)
found = [name for name in {absent} if importlib.util.find_spec(name)]
assert not found, found
"""
    options = [option for extra in filter(None, extras.split(",")) for option in ("--extra", extra)]
    result = subprocess.run(
        [find_uv(), "run", "--isolated", "--frozen", "--no-dev", "--package", name, *options, "python", "-c", code],
        cwd=ROOT,
        env={**os.environ, "UV_COMPILE_BYTECODE": "0"},  # each environment is used once
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert result.returncode == 0, result.stderr


DRAW = """
import importlib.util, sys
from datetime import UTC, date, datetime
from tequipy_reporting import DailyActivity, Period
from tequipy_reporting.infrastructure.pdf.document import ActivityDocument, render
day = date(2026, 1, 1)
days = [DailyActivity(day)]
document = ActivityDocument(period=Period(day, day), requested_by="王", requested_at=datetime.now(UTC), days=days)
content = render(document)
assert content.startswith(b"%PDF")
"""
NO_FONTS = """
from tequipy_reporting.wiring import build_writers
try:
    build_writers(None, None)
except ImportError as error:
    assert "tequipy-reporting[worker]" in str(error)
else:
    raise AssertionError("there are fonts")
"""


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.parametrize(("extra", "code"), [("worker", DRAW), ("api", NO_FONTS)])
def test_a_document_is_drawn_with_the_extra_alone(extra: str, code: str) -> None:
    """The extra `worker` installs all that draws a PDF; without it, which is how the API has it, the error names it."""
    command = ["run", "--isolated", "--frozen", "--no-dev", "--package", "tequipy-reporting", "--extra", extra]
    environment = {**os.environ, "UV_COMPILE_BYTECODE": "0"}
    result = subprocess.run(
        [find_uv(), *command, "python", "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.prove
@pytest.mark.quick
def test_tracing_without_its_extra_is_a_settings_fault(tmp_path: Path) -> None:
    """The worker installed without OpenTelemetry ends with status 78 and one line that names the extra."""
    variables = {
        "TEQUIPY_ENVIRONMENT": "test",
        "TEQUIPY_PUBLIC_URL": "https://app.example.com",
        "TEQUIPY_DATABASE__URL": "postgresql+asyncpg://ada:hunter2@localhost/tequipy",
        "TEQUIPY_CACHE__URL": "redis://localhost/0",
        "TEQUIPY_CELERY__BROKER_URL": "redis://localhost/1",
        "TEQUIPY_OBSERVABILITY__OTLP_ENDPOINT": "http://collector:4318",
    }
    run = [
        find_uv(),
        "run",
        "--isolated",
        "--frozen",
        "--no-dev",
        "--project",
        str(ROOT),
        "--package",
        "tequipy-worker",
    ]
    result = subprocess.run(
        [*run, "tequipy-worker", "run"],
        cwd=tmp_path,
        env={**os.environ, "UV_COMPILE_BYTECODE": "0", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert result.returncode == os.EX_CONFIG
    fault = "TEQUIPY_OBSERVABILITY__OTLP_ENDPOINT: needs OpenTelemetry: install tequipy-observability[otel]"
    assert fault in result.stderr.splitlines()


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_install_lines_of_the_readme_work(tmp_path: Path) -> None:
    """The README's commands install the cache from a repository, into an environment without anything else."""
    repository = tmp_path / "repository"
    for package in ("caching", "observability"):
        source = ROOT / "packages" / package
        shutil.copytree(source, repository / "packages" / package, ignore=shutil.ignore_patterns("__pycache__"))
    (block,) = re.findall(r"```shell\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    commands = block.replace("https://git.example.com/tequipy.git", repository.as_uri())
    script = f"""
set -e
cd "{repository}"
git init --quiet
git add .
git -c user.name=Test -c user.email=test@example.com commit --quiet --message=Test
"$UV" venv --quiet "$VIRTUAL_ENV"
export UV_PYTHON="$VIRTUAL_ENV/bin/python"  # `make` sets it to the Python that runs make, which must not be changed
{commands.replace("pip install", '"$UV" pip install')}
"$UV_PYTHON" -c "import tequipy_caching.wiring"
"""
    environment = {**os.environ, "UV": find_uv(), "VIRTUAL_ENV": str(tmp_path / "venv"), "UV_COMPILE_BYTECODE": "0"}
    result = subprocess.run(
        ["/bin/bash", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=110
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_the_install_block_of_a_package_names_all_that_it_needs(package: str) -> None:
    """The README of a package installs it from the repository with each package that it depends on, and its extras."""

    def needed(requirement: str) -> set[str]:
        name = requirement.partition("[")[0]
        project = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        found = (re.match(r"tequipy-(\w+(?:\[\w+\])?)==", line) for line in project["dependencies"])
        own = {match[1] for match in found if match}
        return own.union({requirement}, *map(needed, own))

    text = (ROOT / "packages" / package / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```shell\n(.*?)```", text, flags=re.DOTALL)
    found = re.findall(r'"tequipy-(\w+(?:\[\w+\])?) @ \$repository#subdirectory=packages/(\w+)"', block)
    names = needed(package)
    names -= {name.partition("[")[0] for name in names if "[" in name}  # the line with an extra installs it too
    assert sorted(found) == sorted((each, each.partition("[")[0]) for each in names)
    assert "on no package index" in text


@pytest.mark.prove
@pytest.mark.quick
def test_changed_sources_of_the_same_version_are_installed(tmp_path: Path) -> None:
    """With a cache, as in an image's build, a changed source or template is installed, also into the same folder."""
    source, changed = tmp_path / "source", ("__init__.py", "templates/undo_email.txt")
    for folder in ("packages", "apps", "tools"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    for manifest in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / manifest, source)
    sync = [find_uv(), "sync", "--quiet", "--locked", "--no-dev", "--no-editable", "--package", "tequipy-auth"]
    environment = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_COMPILE_BYTECODE": "0"}
    environment.pop("VIRTUAL_ENV", None)
    for count, folder in enumerate(("first", "second", "second"), start=1):
        for name in changed:
            with (source / "packages/auth/src/tequipy_auth" / name).open("a") as file:
                file.write("# changed\n")
        installed = tmp_path / folder
        subprocess.run(sync, cwd=source, env={**environment, "UV_PROJECT_ENVIRONMENT": str(installed)}, check=True)
        found = [next(installed.glob(f"lib/*/site-packages/tequipy_auth/{name}")).read_text() for name in changed]
        assert [text.count("# changed") for text in found] == [count, count]


@pytest.mark.parametrize("manifest", sorted(ROOT.glob("*/*/pyproject.toml")), ids=lambda path: path.parent.name)
def test_a_build_is_cached_by_its_sources(manifest: Path) -> None:
    """Every package tells uv that a cached build belongs to its sources, and not to its version alone."""
    keys = tomllib.loads(manifest.read_text(encoding="utf-8"))["tool"]["uv"]["cache-keys"]
    assert {"file": "src/**/*.py"} in keys
    assert {"file": "src/**/*.[!p]*"} in keys


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared(package: str) -> None:
    """Each library that a module of the package imports, at its top or later, is a requirement of the package."""
    lines = metadata(f"tequipy-{package}").get_all("Requires-Dist") or []
    declared = {canonicalize_name(Requirement(line).name) for line in lines} | {f"tequipy-{package}"}
    distributions = packages_distributions()
    missing = set()
    for module, path in sources_of(package).items():
        for name in imported_libraries(path):
            providers = [PART_OF.get(name, name).replace("_", "-"), *distributions.get(name, [])]
            if not declared & set(map(canonicalize_name, providers)):
                missing.add(f"{module}: {name}")
    assert missing == set()


def imported_libraries(path: Path) -> set[str]:
    """Return the first parts of the names of all modules that a file imports, without the standard library."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names

"""The dependency rules of docs/adr/0050 are kept, and each import contract fails when it is broken."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from .public_modules import FEATURES, PACKAGES, ROOT, public_modules, sources_of

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = [contract["id"] for contract in CONFIG["tool"]["importlinter"]["contracts"]]

# For each contract: a module, and an import in it that breaks the contract.
VIOLATIONS = {
    **{f"private-{name}": ("tequipy_api/app.py", f"import tequipy_{name}.infrastructure") for name in FEATURES},
    "packages": ("tequipy_platform/_clock.py", "import tequipy_caching"),
    "caching-alone": ("tequipy_caching/wiring.py", "import tequipy_platform"),
    "layers": ("tequipy_auth/domain/__init__.py", "import tequipy_auth.infrastructure"),
    "caching-layers": ("tequipy_caching/cache/keys.py", "import tequipy_caching.redis.link"),
    "caching-rules": ("tequipy_caching/cache/keys.py", "import redis"),
    "private-caching": ("tequipy_auth/domain/__init__.py", "import tequipy_caching.cache.keys"),
    "observability-layers": ("tequipy_observability/metrics/port.py", "import tequipy_observability.logging"),
    "observability-root": ("tequipy_caching/redis/__init__.py", "import tequipy_observability.wiring"),
    "observability-api": ("tequipy_caching/redis/__init__.py", "import tequipy_observability.api"),
    "private-observability": ("tequipy_platform/_clock.py", "import tequipy_observability._context"),
    "private-fonts": ("tequipy_worker/app.py", "import tequipy_fonts._files"),
    "platform-layers": ("tequipy_platform/database/engine.py", "import tequipy_platform.messaging.outbox"),
    "platform-capabilities": ("tequipy_platform/web/health.py", "import tequipy_platform.database"),
    "private-platform": ("tequipy_auth/wiring.py", "import tequipy_platform.database.engine"),
    "shared-database": ("tequipy_auth/api/__init__.py", "import tequipy_platform.database"),
    "web": ("tequipy_auth/wiring.py", "import tequipy_platform.web"),
    "migrations": ("tequipy_worker/app.py", "import tequipy_platform.database.migrations"),
    "platform-celery": ("tequipy_platform/messaging/unpublished.py", "import tequipy_platform.messaging.celery"),
    "domain": ("tequipy_auth/domain/policy.py", "import tequipy_platform.settings"),
    "testing": ("tequipy_api/app.py", "import tequipy_auth.testing"),
    "fastapi": ("tequipy_worker/app.py", "import fastapi"),
    "celery": ("tequipy_api/app.py", "import celery"),
    "environment": ("tequipy_auth/wiring.py", "import pydantic_settings"),
    "opentelemetry": ("tequipy_platform/database/engine.py", "import opentelemetry.trace"),
}
FURTHER_VIOLATIONS = [
    ("platform-layers", "tequipy_platform/settings/loading.py", "import tequipy_platform.database"),
    ("platform-layers", "tequipy_platform/_errors.py", "import tequipy_platform.settings"),
    ("platform-layers", "tequipy_platform/messaging/outbox.py", "import tequipy_platform.mail"),
    ("platform-capabilities", "tequipy_platform/mail/smtp.py", "import tequipy_platform.database"),
    ("platform-capabilities", "tequipy_platform/storage/settings.py", "import tequipy_platform.mail"),
    ("migrations", "tequipy_platform/database/engine.py", "import tequipy_platform.database.migrations"),
    ("platform-celery", "tequipy_api/app.py", "import tequipy_platform.messaging.celery"),
    ("fastapi", "tequipy_platform/messaging/celery/app.py", "import fastapi"),
    ("fastapi", "tequipy_platform/settings/loading.py", "def late() -> None:\n    import starlette"),
    ("celery", "tequipy_platform/messaging/outbox.py", "import celery"),
    ("celery", "tequipy_platform/web/health.py", "import kombu"),
    ("observability-layers", "tequipy_observability/_context.py", "import tequipy_observability.metrics"),
    ("private-observability", "tequipy_api/app.py", "import tequipy_observability.logging"),
    ("private-platform", "tequipy_api/app.py", "import tequipy_platform.settings.loading"),
    ("domain", "tequipy_auth/domain/policy.py", "import tequipy_caching.wiring"),
    ("domain", "tequipy_auth/domain/policy.py", "import tequipy_caching.testing"),
    ("domain", "tequipy_auth/domain/services/new.py", "from tequipy_platform import settings"),
    ("private-auth", "tequipy_api/app.py", "import tequipy_auth.api.routes.me"),
    ("private-auth", "tequipy_reporting/api/__init__.py", "import tequipy_auth.api.csrf"),
    ("private-reporting", "tequipy_worker/app.py", "import tequipy_reporting.infrastructure"),
    ("packages", "tequipy_auth/wiring.py", "import tequipy_reporting"),
    ("layers", "tequipy_reporting/domain/reports.py", "import tequipy_reporting.infrastructure.models"),
    ("domain", "tequipy_reporting/domain/reports.py", "import tequipy_auth.wiring"),
    ("testing", "tequipy_worker/app.py", "import tequipy_reporting.testing"),
    ("fastapi", "tequipy_reporting/wiring.py", "import fastapi"),
    ("private-auth", "tequipy_worker/app.py", "import tequipy_auth.conformance.target"),
    ("private-auth", "tequipy_api/app.py", "import tequipy_auth.testing.ports"),
    ("private-caching", "tequipy_api/app.py", "import tequipy_caching.conformance.target"),
    ("testing", "tequipy_worker/app.py", "import tequipy_auth.conformance"),
    ("testing", "tequipy_auth/wiring.py", "import tequipy_caching.testing"),
    ("testing", "tequipy_worker/app.py", "import tequipy_platform.testing"),
    ("testing", "tequipy_api/app.py", "import tequipy_observability.testing"),
    ("opentelemetry", "tequipy_observability/api/observe.py", "import opentelemetry"),
    ("layers", "tequipy_auth/new.py", "import tequipy_platform"),
    ("caching-alone", "tequipy_caching/new.py", "import tequipy_platform"),
    ("caching-alone", "tequipy_caching/cache/new.py", "import fastapi"),
    ("caching-layers", "tequipy_caching/new.py", "import tequipy_platform"),
    ("caching-layers", "tequipy_caching/wiring.py", "import tequipy_caching.api"),
]


def lint_imports(*arguments: str, sources: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(sources) if sources else "", os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo", *arguments],
        cwd=sources or ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.fixture(scope="module")
def copy_of_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy for all tests of the module, which restore what they change."""
    folder = tmp_path_factory.mktemp("sources")
    for source in [*ROOT.glob("packages/*/src/*"), *ROOT.glob("apps/*/src/*")]:
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@contextmanager
def added(statement: str, target: Path) -> Iterator[None]:
    """Add a statement to a module, which may be new, while the block lasts."""
    before = target.read_text() if target.exists() else None
    target.write_text(f"{before or ''}\n{statement}\n")
    try:
        yield
    finally:
        if before is None:
            target.unlink()
        else:
            target.write_text(before)


def test_every_contract_is_kept() -> None:
    """The sources keep all import contracts."""
    result = lint_imports()
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_contract_has_a_violation() -> None:
    """For each contract there is a violation that shows that the contract can fail."""
    assert sorted(VIOLATIONS) == sorted(CONTRACTS)


@pytest.mark.parametrize(
    ("contract", "module", "statement"),
    [*((contract, *violation) for contract, violation in VIOLATIONS.items()), *FURTHER_VIOLATIONS],
)
def test_a_broken_contract_fails(contract: str, module: str, statement: str, copy_of_sources: Path) -> None:
    """A forbidden import in a copy of the sources breaks the contract."""
    with added(statement, copy_of_sources / module):
        result = lint_imports("--contract", contract, sources=copy_of_sources)
    print(f"{module}: {statement}\n{result.stdout}")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def test_every_package_is_in_the_contracts() -> None:
    """Every package of the workspace is analysed, has a place among the packages, and has private modules."""
    folders = {path.name for path in [*ROOT.glob("packages/*/src/*"), *ROOT.glob("apps/*/src/*")]}
    contracts = {contract["id"]: contract for contract in CONFIG["tool"]["importlinter"]["contracts"]}
    placed = {name for layer in contracts["packages"]["layers"] for name in re.findall(r"\w+", layer)}
    assert set(CONFIG["tool"]["importlinter"]["root_packages"]) == folders
    assert placed == folders
    for package in ROOT.glob("packages/*"):
        assert contracts[f"private-{package.name}"]["allowed_importers"] == [f"tequipy_{package.name}"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_module_is_public_or_private(package: str) -> None:
    """Every module of a package is either in its README's table and has `__all__`, or is private."""
    contracts = {contract["id"]: contract for contract in CONFIG["tool"]["importlinter"]["contracts"]}
    patterns = [
        re.compile(re.escape(expression).replace(r"\*", r"\w+") + r"(\.\w+)*")
        for expression in contracts[f"private-{package}"]["protected_modules"]
    ]
    modules = sources_of(package)
    private = {name for name in modules if any(pattern.fullmatch(name) for pattern in patterns)}
    assert sorted(set(modules) - private) == sorted(public_modules(package))
    for name in public_modules(package):
        assert "__all__" in modules[name].read_text(), name


def disallowed_imports(path: Path, package: str) -> set[str]:
    """Return the imports of a file, by full name, that no domain and no root module of `package` may have.

    Allowed are the standard library, the root modules of the other packages, and modules of the own package (the
    contracts order these). Deferred and type-checking imports count.
    """
    modules = {name for other in PACKAGES for name in sources_of(other)}
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (children & modules) or {node.module}
    roots = {f"tequipy_{name}" for name in PACKAGES}
    return {
        name
        for name in names - roots
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith(f"tequipy_{package}.")
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_a_domain_imports_only_the_standard_library_and_root_modules(package: str) -> None:
    """A domain and its package's root module import only the standard library and root modules of other packages."""
    source = ROOT / f"packages/{package}/src/tequipy_{package}"
    files = [source / "__init__.py", *source.glob("_*.py"), *source.glob("domain/**/*.py")]
    assert len(files) > 1
    for path in files:
        assert disallowed_imports(path, package) == set(), path


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import tequipy_platform.settings", {"tequipy_platform.settings"}),
        ("from tequipy_platform import settings", {"tequipy_platform.settings"}),
        ("from tequipy_caching.wiring import CacheSettings", {"tequipy_caching.wiring"}),
        ("def late() -> None:\n    import tequipy_caching.testing", {"tequipy_caching.testing"}),
        ("import pydantic", {"pydantic"}),
        ("import collections.abc, tequipy_platform\nfrom tequipy_auth.domain import policy", set()),
    ],
)
def test_a_disallowed_import_is_found(statement: str, found: set[str], tmp_path: Path) -> None:
    """The comparison of a domain's imports uses the full names of modules, not their packages alone."""
    file = tmp_path / "policy.py"
    file.write_text(statement)
    assert disallowed_imports(file, "auth") == found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_root_module_loads_only_the_standard_library(package: str) -> None:
    """Importing a root module loads no framework or driver, directly or indirectly."""
    code = (
        "import sys; before = set(sys.modules); "
        f"import tequipy_{package}; "
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(n for n in names if n not in sys.stdlib_module_names and not n.startswith('tequipy_')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


REVISIONS = sorted(ROOT.glob("packages/*/src/*/migrations/versions/*.py"))


@pytest.mark.parametrize("revision", REVISIONS, ids=lambda path: f"{path.parents[2].name}-{path.name[:4]}")
def test_a_revision_calls_schema_name(revision: Path) -> None:
    """No revision contains a schema's name, because an installation may rename it; it calls `schema_name()`."""
    tree = ast.parse(revision.read_text())
    documentation = ast.get_docstring(tree, clean=False)
    literals = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    named = re.compile(rf"^({'|'.join(PACKAGES)})$|\b({'|'.join(PACKAGES)})\"?\.\"?\w")
    assert [text for text in literals if text != documentation and named.search(text)] == []


def imported_names(path: Path, modules: set[str]) -> set[str]:
    """Return the modules among `modules` that a file imports, deferred and type-checking imports included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            children = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            names |= children or {node.module}
    return names & modules


def test_there_are_no_import_cycles() -> None:
    """No module imports itself through others, deferred and type-checking imports included."""
    files = {name: path for package in PACKAGES for name, path in sources_of(package).items()}
    for source in ROOT.glob("apps/*/src"):
        files |= {
            ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
            for path in source.rglob("*.py")
        }
    graph = {name: imported_names(path, set(files)) - {name} for name, path in files.items()}
    order = TopologicalSorter(graph)
    order.prepare()  # raises CycleError, which names the modules


def test_a_cycle_is_found(tmp_path: Path) -> None:
    """A deferred import and a type-checking import close a cycle like any other import."""
    (tmp_path / "first.py").write_text("def late():\n    import second\n")
    (tmp_path / "second.py").write_text("if TYPE_CHECKING:\n    from first import late\n")
    graph = {name: imported_names(tmp_path / f"{name}.py", {"first", "second"}) for name in ("first", "second")}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()

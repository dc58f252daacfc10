"""The dependency rules of docs/adr/0050 are kept, and each import contract fails when it is broken."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = [contract["id"] for contract in CONFIG["tool"]["importlinter"]["contracts"]]
PACKAGES = ["observability", "platform", "caching", "auth"]

# For each contract: a module, and an import in it that breaks the contract.
VIOLATIONS = {
    "packages": ("tequipy_platform/domain/__init__.py", "import tequipy_caching"),
    "caching-alone": ("tequipy_caching/wiring.py", "import tequipy_platform"),
    "layers": ("tequipy_auth/domain/__init__.py", "import tequipy_auth.infrastructure"),
    "caching-layers": ("tequipy_caching/cache/keys.py", "import tequipy_caching.redis.link"),
    "caching-rules": ("tequipy_caching/cache/keys.py", "import redis"),
    "observability-root": ("tequipy_caching/redis/__init__.py", "import tequipy_observability.wiring"),
    "observability-api": ("tequipy_caching/redis/__init__.py", "import tequipy_observability.api"),
    "private-observability": ("tequipy_platform/domain/__init__.py", "import tequipy_observability.domain.context"),
    "private-caching": ("tequipy_auth/domain/__init__.py", "import tequipy_caching.cache.keys"),
    "private-auth": ("tequipy_api/app.py", "import tequipy_auth.infrastructure"),
    "private-platform": ("tequipy_auth/domain/__init__.py", "import tequipy_platform.domain.clock"),
    "shared-database": ("tequipy_auth/api/__init__.py", "import tequipy_platform.infrastructure"),
    "fastapi": ("tequipy_worker/app.py", "import fastapi"),
    "celery": ("tequipy_api/app.py", "import celery"),
    "environment": ("tequipy_auth/wiring.py", "import pydantic_settings"),
}


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


@pytest.fixture
def copy_of_sources(tmp_path: Path) -> Path:
    for source in [*ROOT.glob("packages/*/src/*"), *ROOT.glob("apps/*/src/*")]:
        shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept() -> None:
    """The sources keep all import contracts."""
    result = lint_imports()
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_contract_has_a_violation() -> None:
    """For each contract there is a violation that shows that the contract can fail."""
    assert sorted(VIOLATIONS) == sorted(CONTRACTS)


@pytest.mark.parametrize("contract", sorted(VIOLATIONS))
def test_a_broken_contract_fails(contract: str, copy_of_sources: Path) -> None:
    """A forbidden import in a copy of the sources breaks the contract."""
    module, statement = VIOLATIONS[contract]
    target = copy_of_sources / module
    target.write_text(f"{target.read_text()}\n{statement}\n")
    result = lint_imports("--contract", contract, sources=copy_of_sources)
    print(f"{module}: {statement}\n{result.stdout}")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def imported_modules(path: Path) -> set[str]:
    """Return the top-level names that a file imports, type-checking imports included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_a_domain_imports_only_the_standard_library_and_root_modules(package: str) -> None:
    """A domain and its package's root module import only the standard library and root modules of the workspace."""
    source = ROOT / f"packages/{package}/src/tequipy_{package}"
    allowed = sys.stdlib_module_names | {f"tequipy_{name}" for name in PACKAGES}
    files = [source / "__init__.py", *source.glob("domain/**/*.py")]
    assert files
    for path in files:
        assert imported_modules(path) <= allowed, path


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

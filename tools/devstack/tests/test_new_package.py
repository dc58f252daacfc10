"""`make new-package`: a feature package, and its name in the workspace and in both apps."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tequipy_devstack.new_package import make_package, render_package
from tequipy_devstack.processes import DevstackError

ROOT = Path(__file__).parents[3]
GIT, MAKE = (shutil.which(name) or name for name in ("git", "make"))
TUTORIAL = "docs/tutorial/feature-package.md"


def copy_of_repository(target: Path) -> Path:
    """Copy what a checkout of the working tree would have; in a copy without Git, all but environments and caches."""
    if not (ROOT / ".git").exists():
        ignored = shutil.ignore_patterns(".*_cache", ".hypothesis", ".uv", ".venv", ".dev", "__pycache__", "dist")
        return Path(shutil.copytree(ROOT, target, ignore=ignored, dirs_exist_ok=True))
    listed = subprocess.run(
        [GIT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def test_the_package_has_its_place_in_every_list(tmp_path: Path) -> None:
    """The sources are formatted and keep the rules but for orders; each file that lists packages names the new one."""
    root = copy_of_repository(tmp_path)
    before = {path: path.read_text() for path in root.rglob("*") if path.suffix in {".py", ".toml"}}
    make_package(root, "sample")
    make_package(root, "another")  # after which the lists still have their places
    changed = {path for path, text in before.items() if path.read_text() != text}
    assert len(changed) >= 10
    assert all("sample" in path.read_text() for path in changed)
    for command in (["check", "--ignore", "I001,RUF022"], ["format", "--check"]):
        result = subprocess.run(
            [Path(sys.executable).with_name("ruff"), *command, "packages/sample"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "name",
    ["", "Billing", "bill-ing", "../x", "9lives", "x" * 40, "json", "import", "auth", "api", "item", "page", "metrics"],
)
def test_another_name_is_refused_before_any_change(name: str, tmp_path: Path) -> None:
    """A name that is no module, that shadows one, that exists, or that the code uses, is refused with the reason."""
    for project in ("packages/auth", "packages/reporting", "apps/api", "apps/worker"):
        (tmp_path / project).mkdir(parents=True)
        (tmp_path / project / "pyproject.toml").write_text('version = "1.0.0"\n')
    for app in ("apps/api/src/tequipy_api/app.py", "apps/worker/src/tequipy_worker/app.py"):
        (tmp_path / app).parent.mkdir(parents=True)
        shutil.copy(ROOT / app, tmp_path / app)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DevstackError, match=r"make new-package NAME=billing|exists already|uses for something else"):
        make_package(tmp_path, name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_rearranged_file_is_named(tmp_path: Path) -> None:
    """If a list has no place for the package any more, the error names the file, and nothing is written."""
    root = copy_of_repository(tmp_path)
    app = root / "apps/worker/src/tequipy_worker/app.py"
    app.write_text(app.read_text().replace("**reporting_tasks.", "**tasks_of_reports."))
    with pytest.raises(DevstackError, match=r"apps/worker/src/tequipy_worker/app\.py has no"):
        make_package(root, "sample")
    assert not (root / "packages/sample").exists()
    assert "sample" not in (root / "pyproject.toml").read_text()


def make(root: Path, *arguments: str) -> None:
    # The repository's own settings of uv: the copy has an environment of its own.
    environment = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }
    result = subprocess.run(
        [MAKE, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=1700
    )
    print(*arguments, result.stdout[-300:])
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.timeout(600)
def test_a_new_package_passes_its_tests_as_it_comes(tmp_path: Path) -> None:
    """In a copy of the repository the command, the import contracts and the tests that concern the package pass."""
    root = copy_of_repository(tmp_path)
    make(root, "new-package", "NAME=demo")
    make(root, "test", "PROCESSES=2", "ARGS=-q packages/demo tests/test_architecture.py apps/api/tests/test_openapi.py")


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_a_new_package_passes_every_test_as_it_comes() -> None:
    """In a copy of the repository `make new-package NAME=demo` and `make lint test` pass."""
    with TemporaryDirectory() as folder:
        root = copy_of_repository(Path(folder))
        root.chmod(0o755)  # some tests read the sources as another user
        make(root, "new-package", "NAME=demo")
        make(root, "lint", "test")


def test_the_tutorial_shows_what_the_command_makes(tmp_path: Path) -> None:
    """Each excerpt of the tutorial is part of its file, and its example prints what the tutorial says."""
    files = render_package("billing", version="1.0.0")
    blocks = (ROOT / TUTORIAL).read_text(encoding="utf-8").split("```")
    # What is quoted from another package is compared by tests/test_code_blocks.py.
    code = [block.removeprefix("python\n") for block in blocks[1::2] if re.match(r"python\n(?!# packages/)", block)]
    excerpts = [block for block in code if block.startswith("# ")]
    (example,) = [block for block in code if not block.startswith("# ")]
    assert len(excerpts) > 5
    for excerpt in excerpts:
        path, _, text = excerpt.removeprefix("# ").partition("\n")
        assert text in files[path], path
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"It prints `{done.stdout.strip()}`." in "".join(blocks)

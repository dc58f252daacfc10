"""Releases: all packages have one version, are pinned to each other, and one command sets it everywhere."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MANIFESTS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/*/pyproject.toml"))
CLIENTS = ["clients/python/uv.lock", "clients/typescript/package.json", "clients/typescript/package-lock.json"]


def manifests(root: Path) -> dict[str, dict[str, Any]]:
    """Return the `project` table of each workspace member."""
    tables = (tomllib.loads((root / path).read_text(encoding="utf-8"))["project"] for path in MANIFESTS)
    return {table["name"]: table for table in tables}


def version_faults(projects: dict[str, dict[str, Any]], version: str) -> list[str]:
    """Return the members of another version, and the requirements of members that are not pinned to this one."""
    faults = [name for name, project in projects.items() if project["version"] != version]
    for name, project in projects.items():
        extras = project.get("optional-dependencies", {}).values()
        for text in (*project["dependencies"], *(text for extra in extras for text in extra)):
            requirement = Requirement(text)
            if requirement.name in projects and str(requirement.specifier) != f"=={version}":
                faults.append(f"{name}: {text}")
    return faults


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a copy of the files that a release changes."""
    for path in ["CHANGELOG.md", "pyproject.toml", "uv.lock", "apps/api/openapi.json", *MANIFESTS, *CLIENTS]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    changelog = tmp_path / "CHANGELOG.md"  # right after a release it has no entry for the next one
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(text.replace("## Unreleased\n", "## Unreleased\n\n### Added\n\n- Something.\n"), "utf-8")
    return tmp_path


def release(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that sets the versions."""
    command = [sys.executable, str(ROOT / ".ci/release"), *arguments]
    return subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False, timeout=60)


def test_the_members_have_one_version_and_are_pinned_to_it() -> None:
    """A wheel of one package never meets another release of a sibling."""
    projects = manifests(ROOT)
    assert version_faults(projects, projects["tequipy-platform"]["version"]) == []


def test_a_release_sets_every_version(workspace: Path) -> None:
    """Manifests, pins and the locks agree on the new version, and the changelog's entries stand under it."""
    old = (workspace / "CHANGELOG.md").read_text(encoding="utf-8")
    result = release(workspace, "0.2.0rc1")
    assert (result.returncode, result.stderr) == (0, "")
    assert version_faults(manifests(workspace), "0.2.0rc1") == []
    assert json.loads((workspace / "apps/api/openapi.json").read_text("utf-8"))["info"]["version"] == "0.2.0rc1"
    locked = tomllib.loads((workspace / "uv.lock").read_text(encoding="utf-8"))["package"]
    locked += tomllib.loads((workspace / "clients/python/uv.lock").read_text(encoding="utf-8"))["package"]
    assert {each["version"] for each in locked if each["name"].startswith("tequipy-")} == {"0.2.0rc1"}
    package, lock = (json.loads((workspace / path).read_text(encoding="utf-8")) for path in CLIENTS[1:])
    assert {package["version"], lock["version"], lock["packages"][""]["version"]} == {"0.2.0-rc.1"}
    new = (workspace / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(r"## Unreleased\n\n## 0\.2\.0rc1 - \d{4}-\d\d-\d\d\n", new)
    assert heading is not None
    assert new.replace(heading[0], "## Unreleased\n") == old


def test_a_version_of_development_leaves_the_changelog(workspace: Path) -> None:
    """After a release, the manifests get the next version of development, and the changelog stays as it is."""
    old = (workspace / "CHANGELOG.md").read_text(encoding="utf-8")
    assert release(workspace, "0.2.0.dev0").returncode == 0
    assert version_faults(manifests(workspace), "0.2.0.dev0") == []
    assert (workspace / "CHANGELOG.md").read_text(encoding="utf-8") == old


@pytest.mark.parametrize("arguments", [(), ("",), ("v1.2.3",), ("1.2",), ("1.2.3.dev1",), ("1.2.3", "x")])
def test_a_wrong_version_changes_nothing(workspace: Path, arguments: tuple[str, ...]) -> None:
    """The command says what a version looks like."""
    old = (workspace / "CHANGELOG.md").read_text(encoding="utf-8")
    result = release(workspace, *arguments)
    assert result.returncode == 1
    assert "make release VERSION=0.2.0" in result.stderr
    assert (workspace / "CHANGELOG.md").read_text(encoding="utf-8") == old


def test_a_release_happens_once_and_has_entries(workspace: Path) -> None:
    """A second release of a version, and one of which the changelog says nothing, are refused."""
    assert release(workspace, "0.2.0").returncode == 0
    assert "has been released" in release(workspace, "0.2.0").stderr
    assert "no entries" in release(workspace, "0.3.0").stderr

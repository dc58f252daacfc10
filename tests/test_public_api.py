"""A change of what importers may use is seen in a diff; one that breaks importers is in the changelog."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .public_modules import ROOT
from .wheels import unpack_last_release

PROGRAM = ROOT / ".ci/public-api"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program in the repository."""
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )


def test_the_public_names_are_those_of_the_snapshots() -> None:
    """`packages/*/public-api.txt` has every public name with its parameters, fields and bases, as in the sources."""
    result = run("--check")
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\nIf the change is wanted, run `make reference`."


def test_a_breaking_change_is_in_the_changelog(tmp_path: Path) -> None:
    """Each public name that was removed or is incompatible with the last release is under Changed or Removed."""
    version = unpack_last_release(tmp_path)
    if version is None:
        pytest.skip("this clone has no commit of a release")
    result = run("--breaking", tmp_path)
    assert result.returncode == 0, result.stderr
    _, _, text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("## Unreleased\n")
    entries = text.partition("\n## ")[0] + "\n##"
    sections = re.findall(r"^### (?:Changed|Removed)\n(.*?)(?=^##)", entries, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"\w+", "\n".join(sections)))
    missing = [line for line in result.stdout.splitlines() if line.partition(": ")[0].rpartition(".")[2] not in named]
    assert missing == [], f"since {version}; name them in CHANGELOG.md"


def test_a_breaking_change_is_found(tmp_path: Path) -> None:
    """A removed function, a removed parameter and a removed method are reported with the name that importers use."""
    for tree, extra in (("before", ", extra: int = 0"), ("after", "")):
        package = tmp_path / tree / "packages/shop/src/tequipy_shop"
        package.mkdir(parents=True)
        (tmp_path / tree / "packages/shop/pyproject.toml").touch()
        (tmp_path / tree / "packages/shop/README.md").write_text("| `tequipy_shop` | all |\n")
        names = ["order", "refund", "Cart"] if extra else ["order", "Cart"]
        (package / "__init__.py").write_text(
            f"from tequipy_shop._orders import {', '.join(names)}\n__all__ = {names}\n"
        )
        more = "    def clear(self) -> None: ...\ndef refund() -> None: ...\n" if extra else ""
        (package / "_orders.py").write_text(
            f"def order(sku: str{extra}) -> None: ...\nclass Cart:\n    size: int\n{more}"
        )
    result = subprocess.run(
        [sys.executable, PROGRAM, "--breaking", tmp_path / "before"],
        cwd=tmp_path / "after",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert sorted(result.stdout.splitlines()) == [
        "tequipy_shop.Cart: tequipy_shop._orders.Cart.clear: Public object was removed",
        "tequipy_shop.order: tequipy_shop._orders.order: Parameter was removed",
        "tequipy_shop.refund: tequipy_shop._orders.refund: Public object was removed",
    ]

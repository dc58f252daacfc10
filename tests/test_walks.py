"""docs/architecture.md names functions that exist, and a login is found in few files."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
REFERENCES = sorted(set(re.findall(r"`((?:apps|packages)/[\w/.]+\.py)::([\w.]+)`", PAGE)))
MOST_FILES = 12


def names(path: Path) -> set[str]:
    """Return the classes and functions of a module, and the methods of its classes as `Class.method`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


@pytest.mark.parametrize(("path", "name"), REFERENCES)
def test_a_named_function_exists(path: str, name: str) -> None:
    """The function or class of a step is defined in the file that the page names."""
    assert name in names(ROOT / path)


def test_a_login_is_found_in_few_files() -> None:
    """Who follows a login opens at most 12 files of `api` and `domain` layers."""
    login = PAGE.partition("## A login")[2].partition("\n## ")[0]
    files = set(re.findall(r"`(packages/[\w/]*/(?:api|domain)(?:/[\w/]+)?\.py)::", login))
    print(f"\nfiles of api and domain in the walk through a login: {len(files)}")
    assert 0 < len(files) <= MOST_FILES

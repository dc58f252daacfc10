"""Sources and documents use the terms of docs/glossary.md, not the private terms before them; test files are short."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {path.parent.name: path for path in sorted([*ROOT.glob("packages/*/src"), *ROOT.glob("apps/*/src")])}

PRIVATE_TERMS = re.compile(
    r"(?<![a-z])(doors?|breach|buried|stand[- ]ins?|hears?|dies_at|take_back|whoever|unseal|seal|flights?|deaf)"
    r"(?![a-z])",
    re.IGNORECASE,
)
STANDARD_TERMS = re.compile(
    r"in[ _-]flight|single[ _-]flight|\"deaf\"|cache_backplane_deaf_seconds|\"dies_at\"|ix_login_attempts_dies_at",
    re.IGNORECASE,
)
"""Terms of the field, names that users of the caching package depend on, and a column of `auth.login_attempts`."""

MAX_LINES = 300


def private_terms(paths: Iterable[Path]) -> list[str]:
    """Return `file:line: text` for each line of the files that contains a private term."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(paths)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PRIVATE_TERMS.search(STANDARD_TERMS.sub("", line))
    ]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_sources_contain_no_private_terms(name: str) -> None:
    """No line of a package's sources contains a term that the glossary has replaced."""
    assert private_terms(path for path in SOURCES[name].rglob("*") if path.suffix in {".py", ".lua"}) == []


def test_documents_contain_no_private_terms() -> None:
    """No line of the documentation, the ADRs or a README contains a term that the glossary has replaced."""
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*/README.md"), *ROOT.glob("*/README.md"), ROOT / "README.md"]
    assert len(pages) > 50, "the folders are found"
    assert private_terms(pages) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# whoever asks", True),
        ("self._flight = None", True),
        ("Unseal the door.", True),
        ('backplane: Literal["live", "deaf"]', False),
        ("requests in flight, in-flight loads, single flight, in_flight", False),
        ("an outdoor sealant", False),
    ],
)
def test_private_terms_are_found_as_whole_words(line: str, expected: bool) -> None:
    """The pattern finds whole words in any case, also as parts of names, and leaves standard terms alone."""
    assert bool(PRIVATE_TERMS.search(STANDARD_TERMS.sub("", line))) is expected


def lines_of_test_files() -> dict[str, int]:
    """Return the number of lines of each Python file in a folder of tests: tests, fixtures and helpers."""
    folders = [
        ROOT / "tests",
        *(path for kind in ("packages", "apps", "tools") for path in ROOT.glob(f"{kind}/*/tests")),
    ]
    return {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
    }


def test_no_test_file_is_too_long() -> None:
    """A test file has at most 300 lines: what tests share is in a conftest.py or in a module beside them."""
    lines = lines_of_test_files()
    assert len(lines) > 200, "the folders are found"
    too_long = {path: count for path, count in lines.items() if count > MAX_LINES}
    assert too_long == {}

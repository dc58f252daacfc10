"""AGENTS.md and CONTRIBUTING.md name commands and paths that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["AGENTS.md", "CONTRIBUTING.md"]


def code(page: str) -> list[str]:
    """Return the text of each code span of a page."""
    return re.findall(r"`([^`\n]+)`", (ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    """Each `make` command that a page names is a documented target of the Makefile."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {match[1] for span in code(page) if (match := re.match(r"make (\w+)", span))}
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    """Each path and each link target that a page names is in the repository."""
    links = re.findall(r"\]\(([\w./-]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    paths = [
        word for span in code(page) for word in span.split() if re.fullmatch(r"(?!\.venv/)[\w.-]+(/[\w.-]+)+", word)
    ]
    assert paths
    assert [path for path in (*links, *paths) if not (ROOT / path).exists()] == []

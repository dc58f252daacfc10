"""docs/security.md names existing tests, and covers every requirement of the standard."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text()
MET, _, NOT_MET = PAGE.partition("## Not met, and why")
LEVELS_1_AND_2 = {"6.1": 3, "6.2": 12, "6.3": 4, "6.4": 4, "6.5": 5, "6.6": 3, "6.8": 4} | {
    "7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 2, "7.6": 2, "9.1": 3, "9.2": 4
}  # fmt: skip
"""The number of requirements of levels 1 and 2 at the start of each section of V6, V7 and V9 (OWASP ASVS 5.0.0)."""


def last_column(table: str) -> list[str]:
    """Return the last cell of each table row."""
    return [row.rstrip(" |").rpartition("|")[2] for row in table.splitlines() if row.startswith("| ")]


def functions(path: Path) -> set[str]:
    """Return the names of a file's functions, and `Class::method` for its methods."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.AsyncFunctionDef)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return found


def test_every_named_test_exists() -> None:
    """Each row names at least one test, and all named tests exist."""
    rows = [row for row in MET.splitlines() if row.startswith("| ") and not row.startswith("| promise")]
    assert len(rows) > 20
    for row in rows:
        references = re.findall(r"`([\w./]+\.py)(?:::([\w:]+))?`", row)
        assert references, row
        for path, name in references:
            assert (ROOT / path).is_file(), path
            assert not name or name in functions(ROOT / path), f"{path}::{name}"


def test_every_requirement_is_met_or_not_with_a_reason() -> None:
    """Each requirement of levels 1 and 2 of V6, V7 and V9 is either met by a row or not met with a reason."""
    everything = {f"{section}.{number}" for section, most in LEVELS_1_AND_2.items() for number in range(1, most + 1)}
    met = {number for cell in last_column(MET) for number in re.findall(r"\d\.\d\.\d+", cell)}
    unmet = set(re.findall(r"\d\.\d\.\d+", NOT_MET))
    assert met & unmet == set()
    assert met | unmet == everything

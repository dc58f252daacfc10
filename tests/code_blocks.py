"""The code blocks of the documentation, and what shows that each of them is right."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
NOT_CODE: Final = {"console", "text", "{toctree}"}
"""Kinds of blocks that no test runs: what a terminal shows; diagrams, answers and tables of rights; navigation."""

_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<kind>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_RUN_BY: Final = re.compile(r"<!-- (?:the next (?P<count>\d+) blocks are )?run by (?P<test>\S+) -->\n")
_SOURCE: Final = re.compile(r"(?:\{?#|//) ([\w./-]+\.\w+)(?: #\})?\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    text: str
    run_by: str | None
    """The test that runs it, as the comment before it in the page says: `<!-- run by path::test -->`."""

    @property
    def source(self) -> Path | None:
        """The file of which it is an excerpt, as its first line says."""
        match = _SOURCE.match(self.text)
        return ROOT / match[1] if match and (ROOT / match[1]).is_file() else None

    @property
    def missing(self) -> list[str]:
        """The parts of an excerpt, between lines with dots alone, that its file does not contain in this order."""
        assert self.source
        source, parts = self.source.read_text(encoding="utf-8"), re.split(r"^\.\.\.\n", self.text, flags=re.MULTILINE)
        parts[0] = parts[0].partition("\n")[2]
        found, missing = 0, []
        for part in parts:
            position = source.find(part, found)
            if position < 0:
                missing.append(part)
            else:
                found = position + len(part)
        return missing


def pages() -> list[Path]:
    """Return the pages of the documentation that people write."""
    patterns = ["*.md", "docs/**/*.md", "*/README.md", "*/*/README.md"]
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(path for path in found if not {"generated", ".venv", "node_modules"} & set(path.parts))


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    name, announced, run_by, position = page.relative_to(ROOT).as_posix(), 0, None, 0
    for match in _FENCE.finditer(text):
        if comments := list(_RUN_BY.finditer(text, position, match.start())):
            run_by, announced = comments[-1]["test"], int(comments[-1]["count"] or 1)
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["text"].splitlines(keepends=True))
        yield Block(
            name,
            text.count("\n", 0, match.start()) + 1,
            match["kind"].strip(),
            code,
            run_by if announced > 0 else None,
        )
        announced, position = announced - 1, match.end()

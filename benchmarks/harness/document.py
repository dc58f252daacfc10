"""Writes results between the markers of a page, which holds prose too."""

import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs/performance.md"


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; raises `ValueError` without them."""
    before = page.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    after, count = section.subn(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", before)
    if count != 1:
        raise ValueError(f"{page.name} has {count} sections {name}, not one")
    page.write_text(after, encoding="utf-8")

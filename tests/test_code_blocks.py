"""Each code block of the documentation is run by a test, or is an excerpt of a source file."""

from pathlib import Path

import pytest

from .code_blocks import NOT_CODE, ROOT, blocks_of, pages
from .test_adr import exists


def test_all_pages_are_found() -> None:
    """The pages are those of docs/, of the root, and of each package and app."""
    names = {page.relative_to(ROOT).as_posix() for page in pages()}
    assert {"README.md", "docs/how-to/pages.md", "packages/auth/README.md", "deploy/README.md"} <= names


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_each_code_block_is_tested(page: Path) -> None:
    """A block names its kind; what is code is an excerpt whose file contains it, or names the test that runs it."""
    faults = []
    for block in blocks_of(page):
        place = f"{block.page}:{block.line}"
        if not block.kind:
            faults.append(f"{place} has no kind: ```python, or ```text for a diagram")
        elif block.kind in NOT_CODE:
            continue
        elif block.run_by:
            if not exists(block.run_by):
                faults.append(f"{place} names a test that does not exist: {block.run_by}")
        elif block.source:
            faults += [f"{place} is not in {block.source.relative_to(ROOT)}:\n{part}" for part in block.missing]
        else:
            faults.append(
                f"{place}: begin it with # and the path of its file, or write <!-- run by path::test --> before"
            )
    assert not faults, "\n".join(faults)


def test_a_changed_excerpt_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts have to be in the file, in their order; a block with another first line is no excerpt."""
    monkeypatch.setattr("tests.code_blocks.ROOT", tmp_path)
    (tmp_path / "code.py").write_text("a = 1\nb = 2\nc = 3\n")
    page = tmp_path / "page.md"

    def missing(text: str) -> list[str] | None:
        page.write_text(f"# Page\n\n```python\n{text}```\n")
        (block,) = blocks_of(page)
        return block.missing if block.source else None

    assert missing("# code.py\na = 1\n...\nc = 3\n") == []
    assert missing("# code.py\nc = 3\n...\na = 1\n") == ["a = 1\n"]
    assert missing("# code.py\na = 2\n") == ["a = 2\n"]
    assert missing("# other.py\na = 1\n") is None

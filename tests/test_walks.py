"""A login, as docs/architecture.md follows it through the code, is found in few files."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs/architecture.md").read_text(encoding="utf-8")
MOST_FILES = 12


def test_a_login_is_found_in_few_files() -> None:
    """Who follows a login opens at most 12 files of `api` and `domain` layers."""
    login = PAGE.partition("## A login")[2].partition("\n## ")[0]
    files = set(re.findall(r"`(packages/[\w/]*/(?:api|domain)(?:/[\w/]+)?\.py)::", login))
    print(f"\nfiles of api and domain in the walk through a login: {len(files)}")
    assert 0 < len(files) <= MOST_FILES

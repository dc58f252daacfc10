"""The README: its example runs, and the tests that it names exist."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_the_example_prints_what_it_says(redis_url: str) -> None:
    """With a real Redis, the example prints the lines in its comments."""
    example, *_ = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    expected = re.findall(r"print\(.*# → (.*)$", example, re.MULTILINE)
    code = example.replace("redis://localhost:6379/0", redis_url)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected
    assert expected


def test_each_requirement_on_redis_names_existing_tests() -> None:
    """Each row of the requirements on Redis names a test, and all tests that the README names exist."""
    _, _, section = README.read_text(encoding="utf-8").partition("## Requirements on Redis\n")
    rows = [row for row in section.partition("\n## ")[0].splitlines() if row.startswith("| ")][1:]
    assert rows
    for row in rows:
        assert NAMED_TEST.search(row.rpartition(" | ")[2]), row
    for path, test in NAMED_TEST.findall(README.read_text(encoding="utf-8")):
        assert f"def {test}(" in (README.parent / "tests" / path).read_text(encoding="utf-8"), (path, test)

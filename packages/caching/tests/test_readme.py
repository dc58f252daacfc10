"""The README: its example runs, and the tests that it names exist."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from pydantic import SecretStr

from tequipy_caching import RatePolicy
from tequipy_caching.wiring import CacheSettings, build_cache, build_rate_limiter

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


def example(word: str) -> CodeType:
    """Compile the example of the README that begins with a word; it may await."""
    (source,) = re.findall(rf"```python\n({word} .*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    code: CodeType = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


async def test_the_example_of_an_expiring_set_runs(redis_url: str) -> None:
    """An added member is in the set at once, and a member of the source as soon as the set is live."""

    async def load_from_database() -> dict[str, float]:
        return {"session-2": 900}

    async with build_cache(CacheSettings(url=SecretStr(redis_url), prefix="readme")) as manager:
        names: dict[str, Any] = {"manager": manager, "load_from_database": load_from_database}
        await eval(example("revoked"), names)  # noqa: S307 -- the README is ours
        revoked = manager.expiring_set("revoked", source=load_from_database)
        assert "session-1" in revoked
        assert await revoked.contains("session-2")


async def test_the_example_of_a_rate_limiter_runs(redis_url: str) -> None:
    """The first request of a client is allowed, and the decision has the values that the comment says."""
    names: dict[str, Any] = {
        "build_rate_limiter": build_rate_limiter,
        "settings": CacheSettings(url=SecretStr(redis_url)),
    }
    names |= {"RatePolicy": RatePolicy, "client_address": "192.0.2.1"}
    await eval(example("limiter"), names)  # noqa: S307 -- the README is ours
    decision = names["decision"]
    assert (decision.allowed, decision.remaining, decision.retry_after) == (True, 59, 0.0)


def test_each_requirement_on_redis_names_existing_tests() -> None:
    """Each row of the requirements on Redis names a test, and all tests that the README names exist."""
    _, _, section = README.read_text(encoding="utf-8").partition("## Requirements on Redis\n")
    rows = [row for row in section.partition("\n## ")[0].splitlines() if row.startswith("| ")][1:]
    assert rows
    for row in rows:
        assert NAMED_TEST.search(row.rpartition(" | ")[2]), row
    for path, test in NAMED_TEST.findall(README.read_text(encoding="utf-8")):
        assert f"def {test}(" in (README.parent / "tests" / path).read_text(encoding="utf-8"), (path, test)

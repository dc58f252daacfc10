"""The example of the README."""

import re
import subprocess
import sys
from pathlib import Path

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FORBIDDEN = ("fastapi", "celery", "sqlalchemy", "asyncpg", "redis", "bcrypt", "jwt")
CHECK = f"import sys; found = sorted(sys.modules.keys() & set({FORBIDDEN})); assert not found, found"


def run(code: str) -> str:
    done = subprocess.run(  # a separate process, so that only modules of the code are loaded
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_example_runs_without_database_and_framework() -> None:
    """It prints the documented output in a process that has loaded no framework or driver."""
    (expected,) = re.findall(r"^It prints `(.*)`\.$", TEXT, re.MULTILINE)
    assert run(f"{EXAMPLE}\n{CHECK}") == expected

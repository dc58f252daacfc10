"""The example of the README."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
# What the example must get along without.
FORBIDDEN = ("fastapi", "celery", "sqlalchemy", "pydantic", "asyncpg", "redis", "bcrypt", "jwt", "email_validator")
CHECK = f"import sys; found = sorted(sys.modules.keys() & set({FORBIDDEN})); assert not found, found"


def run(code: str) -> str:
    done = subprocess.run(  # a process of its own: what is loaded there is what the code loads
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_example_runs_without_database_and_framework() -> None:
    """It prints what the README says, in a process that has loaded no third party's library."""
    text = README.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (expected,) = re.findall(r"^It prints `(.*)`\.$", text, re.MULTILINE)
    assert run(f"{example}\n{CHECK}") == expected


def test_the_root_door_loads_the_standard_library_alone() -> None:
    """`import tequipy_auth` loads nothing that was installed, but our own packages."""
    found = run(
        "import sys; before = set(sys.modules); import tequipy_auth; "
        "print({name.partition('.')[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names)"
    )
    assert set(re.findall(r"'(\w+)'", found)) <= {
        "tequipy_auth",
        "tequipy_caching",
        "tequipy_observability",
        "tequipy_platform",
    }

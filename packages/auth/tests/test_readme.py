"""The example of the README."""

import re
import subprocess
import sys
from pathlib import Path

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
# A login with an account that the example does not create, and requests to the protected route with and without its
# token.
ASK = """
import asyncio, httpx
GOOD = {"email": "ada@example.com", "password": "correct horse battery staple"}
async def ask():
    await auth.registration.create_admin(**GOOD)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        login = await client.post("/api/v1/auth/login", json=GOOD)
        bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
        answers = [await client.get("/whoami"), await client.get("/whoami", headers=bearer)]
        print(*(answer.status_code for answer in answers), answers[0].json()["code"], answers[1].json()["roles"])
        answers = [await client.get("/orders"), await client.get("/orders", headers=bearer)]
        print(*(answer.status_code for answer in answers))
asyncio.run(ask())
"""
# Packages that the example must not load; the recording mailer composes mails as the real ones do, with pydantic.
FORBIDDEN = ("fastapi", "celery", "sqlalchemy", "asyncpg", "redis", "bcrypt", "jwt", "email_validator")
CHECK = f"import sys; found = sorted(sys.modules.keys() & set({FORBIDDEN})); assert not found, found"


def run(code: str) -> str:
    done = subprocess.run(  # a separate process, so that only modules of the code are loaded
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_example_runs_without_database_and_framework() -> None:
    """It prints the documented output in a process that has loaded no framework, driver or hash."""
    example, *_ = EXAMPLES
    (expected,) = re.findall(r"^It prints `(.*)`\.$", TEXT, re.MULTILINE)
    assert run(f"{example}\n{CHECK}") == expected


def test_the_example_in_an_app_protects_its_route() -> None:
    """An unauthenticated request is refused; after a login the route responds."""
    assert run(f"{EXAMPLES[1]}\n{ASK}") == "401 200 unauthenticated ['admin']\n401 200"


def test_the_root_module_loads_only_the_standard_library() -> None:
    """`import tequipy_auth` loads no installed package except our own."""
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

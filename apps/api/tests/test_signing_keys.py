"""An API process that cannot read its signing keys: start, readiness, responses and logs."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_devstack.proving import fetch

Command = Callable[..., subprocess.CompletedProcess[str]]
SETTING = "TEQUIPY_AUTH__KEY_ENCRYPTION_KEY"
RIGHT, WRONG = (f"the {name} key-encryption key, 32 characters and more" for name in ("right", "wrong"))
LOGIN = {"email": "ada@example.com", "password": "correct horse battery staple"}


@pytest.fixture
def keys_in_the_database(run_command: Command) -> list[str]:
    """Create the signing keys under the right key-encryption key, and return their ids."""
    run_command("keys", "rotate", **{SETTING: RIGHT})
    listed = run_command("keys", "list", **{SETTING: RIGHT})
    kids = [line.split()[0] for line in listed.stdout.splitlines()]
    assert len(kids) == 2, listed.stderr
    return kids


@pytest.fixture
def start_uvicorn(
    environment: dict[str, str], tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[Callable[..., tuple[str, Path]]]:
    """Return a function that starts the app under uvicorn without our checks; it returns URL and log file."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(**also: str) -> tuple[str, Path]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
        port, log = free_port(), tmp_path / "api.log"
        with log.open("wb") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "uvicorn", "tequipy_api.main:app", "--port", str(port)],
                    env=inherited | environment | also,
                    cwd=tmp_path,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
        return f"http://127.0.0.1:{port}", log

    yield start
    for process in processes:
        process.kill()
        process.wait()


def get(url: str, *, within: float = 60) -> httpx.Response:
    """Return the response as soon as the server responds."""
    deadline = time.monotonic() + within
    while True:
        try:
            return fetch(url)
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_process_with_a_wrong_key_is_not_ready(
    keys_in_the_database: list[str], start_uvicorn: Callable[..., tuple[str, Path]]
) -> None:
    """Readiness and all requests that need a signing key give 503, and one log line names the setting."""
    url, log = start_uvicorn(**{SETTING: WRONG})
    readiness = get(f"{url}/api/v1/readiness")
    report = readiness.json()
    assert (readiness.status_code, report["status"]) == (503, "not_ready")
    assert {name: check["status"] for name, check in report["checks"].items()} == {
        "database": "up",
        "redis": "up",
        "storage": "up",
        "signing_keys": "down",
    }
    answers = [
        httpx.get(f"{url}/.well-known/jwks.json"),
        httpx.get(f"{url}/api/v1/auth/me", headers={"Authorization": f"Bearer {TOKEN}"}),
        httpx.post(f"{url}/api/v1/auth/login", json=LOGIN),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "unavailable")] * 3
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
    assert httpx.get(f"{url}/api/v1/health").status_code == 200
    lines = [line for line in log.read_text().splitlines() if "signing_keys_refused" in line]
    assert len(lines) == 1
    assert "key_encryption_key: signing key" in lines[0]
    assert any(kid in lines[0] for kid in keys_in_the_database)
    shown = log.read_text() + readiness.text + "".join(answer.text for answer in answers)
    assert not any(secret in shown for secret in (RIGHT, WRONG))
    assert not any(kid in answer.text for kid in keys_in_the_database for answer in answers)


@pytest.mark.usefixtures("keys_in_the_database")
def test_serve_does_not_start_with_a_wrong_key(run_command: Command, free_port: Callable[[], int]) -> None:
    """`serve` ends with status 78 and one line with the variable, as for any other wrong setting."""
    result = run_command("serve", "--port", str(free_port()), **{SETTING: WRONG})
    assert result.returncode == os.EX_CONFIG
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{SETTING}: signing key ")
    assert not any(secret in result.stdout + result.stderr for secret in (RIGHT, WRONG))


def test_serve_does_not_start_without_its_key_file(
    run_command: Command, free_port: Callable[[], int], tmp_path: Path
) -> None:
    """A key folder without an active key is reported in the same way."""
    result = run_command("serve", "--port", str(free_port()), TEQUIPY_AUTH__SIGNING_KEYS_FOLDER=str(tmp_path))
    assert result.returncode == os.EX_CONFIG
    assert result.stderr.startswith("TEQUIPY_AUTH__SIGNING_KEYS_FOLDER: there is no active.pem")


async def test_a_key_of_an_unknown_version_is_detected_while_running(
    settings: ApiSettings, run_command: Command
) -> None:
    """A process with keys in memory is not ready after another one has encrypted them under an unknown key."""
    policy = {"jwks_max_age": 1}  # reloads twice a second
    auth = settings.auth.model_dump() | {"key_encryption_key": RIGHT, "policy": policy}
    app = create_app(ApiSettings.model_validate(settings.model_dump() | {"auth": auth}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client,
    ):
        before = await client.get("/api/v1/readiness")
        assert (before.status_code, before.json()["checks"].keys()) == (200, {"database", "redis", "storage"})
        both = {f"{SETTING}__1": RIGHT, f"{SETTING}__2": WRONG}
        moved = await asyncio.to_thread(run_command, "keys", "reseal", **both)
        assert moved.returncode == 0, moved.stderr
        deadline = time.monotonic() + 30
        while (await client.get("/api/v1/readiness")).status_code == 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert (await client.get("/.well-known/jwks.json")).status_code == 200, "what is held goes on"


TOKEN = (
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImZwc0E4dWRlcmdXUVF0WjVpanc5a182Um9GUmEtU0JzTnI4amt3ZVJrVTQiLCJ0eXAiOiJhdCtqd3QifQ"
    ".e30.AAAA"
)
"""A token's header with an unknown key id."""

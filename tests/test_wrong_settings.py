"""Wrong settings end both commands with status 78 and one line that names the variable without its value."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tequipy_devstack.proving.forked import ForkedCommand

End = Callable[[list[str], dict[str, str]], tuple[int, list[str]]]
SECRET = "hunter2"
GOOD = {
    "TEQUIPY_ENVIRONMENT": "test",
    "TEQUIPY_PUBLIC_URL": "https://app.example.com",
    "TEQUIPY_DATABASE__URL": f"postgresql+asyncpg://ada:{SECRET}@localhost/tequipy",
    "TEQUIPY_CACHE__URL": f"redis://:{SECRET}@localhost/0",
    "TEQUIPY_CELERY__BROKER_URL": f"redis://:{SECRET}@localhost/1",
}
WRONG = [
    ("TEQUIPY_ENVIRONMENT", SECRET),
    ("TEQUIPY_PUBLIC_URL", f"app/{SECRET}"),
    ("TEQUIPY_DATABASE__URL", f"mysql://ada:{SECRET}@localhost/tequipy"),
    ("TEQUIPY_DATABASE__POOL_SIZE", SECRET),
    ("TEQUIPY_CACHE__URL", f"http://{SECRET}"),
    ("TEQUIPY_CACHE__URL", ""),  # missing
    ("TEQUIPY_AUTH__PEPPERS", f"{{{SECRET}"),
    ("TEQUIPY_AUTH__KEY_ENCRYPTION_KEY", SECRET),  # too short
    ("TEQUIPY_AUTH__BREACHED_PASSWORDS_URL", f"https://ada:{SECRET}@mirror.example.com"),
    ("TEQUIPY_STORAGE__URL", f"ftp://{SECRET}"),
    ("TEQUIPY_HTTP__MAX_CONNECTIONS", SECRET),
    ("TEQUIPY_HTTP__LLM__TOTAL", "inf"),
    ("TEQUIPY_HTTP__CA_FILE", f"/nowhere/{SECRET}"),
    ("TEQUIPY_OBSERVABILITY__LOG_LEVEL", SECRET),
    ("TEQUIPY_OBSERVABILITY__OTLP_ENDPOINT", f"http://ada:{SECRET}@collector:4318"),
    ("TEQUIPY_OBSERVABILITY__OTLP_HEADERS", SECRET),
]


@pytest.fixture
def end(api_command: ForkedCommand, worker_command: ForkedCommand, tmp_path: Path) -> End:
    """Return a function that runs a command, and returns its status and its output lines."""

    def run(command: list[str], variables: dict[str, str]) -> tuple[int, list[str]]:
        environment = variables | {name: text for name, text in os.environ.items() if not name.startswith("TEQUIPY_")}
        forked = {"tequipy-api": api_command, "tequipy-worker": worker_command}[command[0]]
        result = forked.run(*command[1:], environment=environment, folder=tmp_path)
        return result.returncode, (result.stdout + result.stderr).splitlines()

    return run


@pytest.mark.parametrize(
    "command",
    [["tequipy-api", "serve"], pytest.param(["tequipy-worker", "run"], marks=pytest.mark.prove)],
    ids=lambda part: part[0],
)
def test_each_wrong_setting_is_one_line(command: list[str], end: End) -> None:
    """Each wrong setting alone is one line, including a missing and an unknown one."""
    own = {
        "tequipy-api": ("TEQUIPY_LIMITER__URL", f"redis://:{SECRET}@localhost/2?foo=bar"),
        "tequipy-worker": ("TEQUIPY_CELERY__BROKER_URL", f"rediss://:{SECRET}@localhost/1?ssl_cert_reqs=off"),
    }
    for name, value in [*WRONG, own[command[0]]]:
        status, lines = end(command, GOOD | {name: value})
        assert (status, len(lines)) == (os.EX_CONFIG, 1), lines
        assert lines[0].startswith(f"{name}: ")
        assert SECRET not in lines[0]


@pytest.mark.parametrize("command", [["tequipy-api", "serve"], ["tequipy-worker", "run"]], ids=lambda part: part[0])
def test_a_typo_in_the_env_file_gets_a_suggestion(command: list[str], tmp_path: Path, end: End) -> None:
    """An unknown name in `.env` is refused with the nearest known name; names of the other app are accepted."""
    (tmp_path / ".env").write_text(
        f"TEQUIPY_CELERY__TIME_LIMIT=300\nTEQUIPY_SERVER__DRAIN_PERIOD=5\nTEQUIPY_OBSERVABLITY__LOG_LEVEL={SECRET}\n"
    )
    status, lines = end(command, GOOD)
    assert (status, lines) == (
        os.EX_CONFIG,
        ["TEQUIPY_OBSERVABLITY__LOG_LEVEL: unknown name in .env; did you mean TEQUIPY_OBSERVABILITY__LOG_LEVEL?"],
    )


def test_production_refuses_what_only_the_worker_has(end: End) -> None:
    """Production refuses mails in a folder, a broker in the cache's database, DEBUG, and built-in secrets."""
    unsafe = {
        "TEQUIPY_ENVIRONMENT": "production",
        "TEQUIPY_CELERY__BROKER_URL": GOOD["TEQUIPY_CACHE__URL"],
        "TEQUIPY_OBSERVABILITY__LOG_LEVEL": "DEBUG",
    }
    status, lines = end(["tequipy-worker", "run"], GOOD | unsafe)
    assert status == os.EX_CONFIG
    assert {line.partition(":")[0] for line in lines} >= {
        "TEQUIPY_MAIL__SMTP_URL",
        "TEQUIPY_CELERY__BROKER_URL",
        "TEQUIPY_OBSERVABILITY__LOG_LEVEL",
        "TEQUIPY_AUTH__PEPPERS",
    }
    assert not any(SECRET in line for line in lines)

"""Runs the command line of the worker, with settings that lead to no server."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

GOOD = {
    "TEQUIPY_ENVIRONMENT": "test",
    "TEQUIPY_PUBLIC_URL": "https://app.example.com",
    "TEQUIPY_DATABASE__URL": "postgresql+asyncpg://app:hunter2@127.0.0.1:1/app",
    "TEQUIPY_CACHE__URL": "redis://:hunter2@127.0.0.1:1/0",
    "TEQUIPY_CELERY__BROKER_URL": "redis://:hunter2@127.0.0.1:1/1",
}


PRODUCTION = GOOD | {
    "TEQUIPY_ENVIRONMENT": "production",
    "TEQUIPY_AUTH__PEPPERS": '{"1": "a-pepper-of-more-than-32-characters!"}',
    "TEQUIPY_AUTH__REFRESH_KEYS": '{"1": "a-key-of-more-than-32-characters!!!"}',
    "TEQUIPY_AUTH__KEY_ENCRYPTION_KEY": "another-key-of-more-than-32-characters",
    "TEQUIPY_AUTH__PSEUDONYM_KEY": "yet-another-key-of-more-than-32-characters",
    "TEQUIPY_MAIL__SMTP_URL": "smtps://mail.example.com",
    "TEQUIPY_OBSERVABILITY__METRICS_PORT": "9100",
}


def worker(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in an empty folder with only these settings."""
    return subprocess.run(
        [Path(sys.executable).with_name("tequipy-worker"), *arguments],
        cwd=cwd,
        env=settings_alone(cwd, variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def settings_alone(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TMPDIR": str(folder)} | variables


Worker = Callable[..., subprocess.CompletedProcess[str]]

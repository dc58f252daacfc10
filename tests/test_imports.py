"""Each kind of process imports the libraries that it uses, and no more: memory and time of a start depend on it."""

import subprocess
import sys

import pytest

CLIENTS = {"httpx", "httpcore2", "h2"}
"""Outgoing HTTP calls, which need a setting."""
SIGNING = {"cryptography.hazmat", "jwt", "bcrypt"}
"""Access tokens and passwords, which only the API has to do with."""
MAIL = {"jinja2", "aiosmtplib", "idna"}
WEB = {"fastapi", "starlette", "uvicorn"}
MIGRATIONS = {"alembic", "mako"}
REDIS_CLIENT = {"tequipy_caching.redis.link"}
"""Not `redis` itself, which Celery's transport imports."""

PROCESSES = {
    "api": ("tequipy_api.server", MIGRATIONS | CLIENTS | {"jinja2", "aiosmtplib"} | {"celery", "kombu"}),
    "worker's parent": (
        "tequipy_worker.cli, tequipy_worker.worker, tequipy_platform.messaging.celery.worker",
        MIGRATIONS | CLIENTS | MAIL | SIGNING | WEB | REDIS_CLIENT | {"obstore", "fpdf", "tequipy_worker.app"},
    ),
    "worker's child": (
        "tequipy_worker.worker, tequipy_worker.app, tequipy_caching._manager",
        MIGRATIONS | CLIENTS | MAIL - {"idna"} | SIGNING | WEB | {"obstore", "fpdf"},
    ),
    "scheduler": (
        "tequipy_worker.cli, tequipy_worker.scheduler",
        MIGRATIONS | CLIENTS | MAIL | SIGNING | WEB | {"obstore", "redis", "celery", "kombu", "fpdf"},
    ),
    "relay": (
        "tequipy_worker.cli, tequipy_worker.relay",
        MIGRATIONS | CLIENTS | MAIL | SIGNING | WEB | REDIS_CLIENT | {"obstore", "fpdf"},
    ),
}


@pytest.mark.parametrize(("modules", "unused"), PROCESSES.values(), ids=PROCESSES)
def test_a_process_imports_no_library_that_it_does_not_use(modules: str, unused: set[str]) -> None:
    """The modules of each process load none of the libraries that only other processes use."""
    code = f"import sys, {modules}; print(*{unused} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == []

"""The public modules are typed for projects outside of the workspace, which use no plugins of mypy."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .public_modules import FEATURES, PACKAGES, public_modules
from .readme_examples import examples

SETTINGS = """
from datetime import timedelta

from pydantic import SecretStr

from tequipy_auth import CACHE_POLICIES, AuthPolicy
from tequipy_auth.wiring import AuthSettings
from tequipy_caching.api import RateLimitSettings
from tequipy_caching.wiring import CacheSettings, LimiterSettings
from tequipy_observability.wiring import ObservabilitySettings
from tequipy_platform.database import DatabaseSettings
from tequipy_platform.mail import MailSettings
from tequipy_platform.messaging.celery import CelerySettings
from tequipy_platform.storage import StorageSettings
from tequipy_reporting import ReportPolicy
from tequipy_reporting.wiring import ReportingSettings

AuthSettings(bcrypt_cost=12, policy=AuthPolicy(refresh_grace=timedelta(seconds=30)))
RateLimitSettings()
CacheSettings(url=SecretStr("redis://localhost"), prefix="shop", policies=CACHE_POLICIES)
LimiterSettings()
ObservabilitySettings(log_level="INFO")
DatabaseSettings(url=SecretStr("postgresql+asyncpg://localhost/shop"), pool_size=3)
MailSettings()
CelerySettings(broker_url=SecretStr("redis://localhost/1"))
StorageSettings()
ReportingSettings(policy=ReportPolicy(max_waiting=10))
"""
# One use of each public module that neither the examples nor the settings import.
MODULES = """
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial

import httpx
from fastapi import FastAPI

from tequipy_auth import Auth
from tequipy_auth.conformance import Target
from tequipy_auth.migrations import HISTORY as AUTH
from tequipy_auth.tasks import TASKS as AUTH_TASKS
from tequipy_auth.tasks import build_handlers as build_auth_handlers
from tequipy_caching import CacheManager
from tequipy_caching.conformance import POLICIES, CacheTarget, LimiterTarget
from tequipy_caching.testing import MemoryCacheManager, MemoryRateLimiter
from tequipy_observability import bind_context, current_context
from tequipy_observability.celery import wire_observability
from tequipy_observability.testing import RecordedSpan, recorded_spans
from tequipy_observability.wiring import Observability
from tequipy_platform import Mailer, SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.database.migrations import History, migrate
from tequipy_platform.http import HttpClients
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log, build_unpublished_messages
from tequipy_platform.messaging.celery import CelerySettings, Relay, TaskRuntime, build_celery, build_relay, wire_tasks
from tequipy_platform.messaging.migrations import HISTORY as PLATFORM
from tequipy_platform.tasks import TASKS as PLATFORM_TASKS
from tequipy_platform.tasks import build_handlers
from tequipy_platform.testing.http import MemoryUpstreams
from tequipy_reporting import Reporting, Writers
from tequipy_reporting.api import wire_reporting
from tequipy_reporting.migrations import HISTORY as REPORTING
from tequipy_reporting.tasks import TASKS as REPORTING_TASKS
from tequipy_reporting.tasks import build_handlers as build_reporting_handlers

HISTORIES: tuple[History, ...] = (PLATFORM, AUTH, REPORTING)
TASKS = (*PLATFORM_TASKS, *AUTH_TASKS, *REPORTING_TASKS)


class ShopTarget(Target):
    def connect(self, process: int = 0) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        return httpx.AsyncClient(base_url=f"https://{process}.shop.example")

    async def mails(self, address: str) -> Sequence[str]:
        return [address]


async def start_cache() -> CacheManager:
    return MemoryCacheManager(POLICIES)


def create_targets() -> tuple[CacheTarget, LimiterTarget]:
    limiter = MemoryRateLimiter()
    return CacheTarget(start=start_cache), LimiterTarget(limiter)


def create_worker(
    settings: CelerySettings, database: Database, auth: Auth, mailer: Mailer, observability: Observability
) -> Relay:
    messages = build_message_log(database)

    def build_runtime() -> TaskRuntime:
        unit_of_work = partial(SqlUnitOfWork, database, SystemClock(), uuid7)
        handlers = {**build_handlers(messages, unit_of_work), **build_auth_handlers(auth, mailer)}
        return TaskRuntime(handlers=handlers, resources=[database, auth], messages=messages)

    celery = build_celery(settings, TASKS, name="shop")
    wire_observability(celery, observability)
    wire_tasks(celery, TASKS, build_runtime)
    return build_relay(celery, build_unpublished_messages(database, redelivery=timedelta(hours=1)), TASKS)


def create_reporting(app: FastAPI, reporting: Reporting, writers: Writers, mailer: Mailer) -> list[str]:
    wire_reporting(app, reporting)
    return [task.name for task in build_reporting_handlers(reporting, writers, mailer)]


async def send_receipt(database: Database) -> str | None:
    bind_context(user_id="ada")
    async with SqlUnitOfWork(database, SystemClock(), uuid7) as work:
        work.outbox.add("shop.send_receipt", order_id="1")
    return current_context().correlation_id


def build_upstreams() -> HttpClients:
    upstreams = MemoryUpstreams()
    upstreams.route("GET https://api.example.com/prices/*", httpx.Response(200, json=1))
    return upstreams.clients


def span_names() -> list[str]:
    with recorded_spans() as recorder:
        spans: list[RecordedSpan] = recorder.spans
    return [span.name for span in spans]


def run_migrations(url: str) -> None:
    migrate(url, HISTORIES, "upgrade head")
"""


def checked_files() -> dict[str, str]:
    """Return the contents of the project that the checkers read, by file name."""
    scripts = {f"{example.name}.py": example.code for example in examples()}
    return scripts | {"settings.py": SETTINGS, "modules.py": MODULES, "features.py": imports_of_features()}


def imports_of_features() -> str:
    """Return imports of the public modules of all features, also of those that no example names."""
    modules = [name for package in FEATURES for name in public_modules(package) if "conformance" not in name]
    imports = "".join(f"from {name} import __all__ as names_{number}\n" for number, name in enumerate(modules))
    return f"{imports}\nprint({', '.join(f'names_{number}' for number in range(len(modules)))})\n"


def test_every_public_module_is_checked() -> None:
    """The project imports each public module of the READMEs' tables, and no private one."""
    imported = {
        node.module
        for content in checked_files().values()
        for node in ast.walk(ast.parse(content))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tequipy_")
    }
    assert sorted(imported) == sorted(name for package in PACKAGES for name in public_modules(package))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the examples, the settings of every package, and a use of every public module."""
    folder = tmp_path_factory.mktemp("project")
    for name, content in checked_files().items():
        (folder / name).write_text(content, encoding="utf-8")
    configuration = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(configuration))
    return folder


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.parametrize(
    "checker",
    [["mypy", "--strict", "--python-executable", sys.executable, "."], ["pyright", "--pythonpath", sys.executable]],
    ids=lambda checker: checker[0],
)
def test_a_foreign_project_is_typed(project: Path, checker: list[str]) -> None:
    """Strict checkers accept the READMEs' examples, the settings of every package, and a use of every public module."""
    command = [str(Path(sys.executable).with_name(checker[0])), *checker[1:]]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=110)
    print(f"\n{checker[0]}: {len(list(project.glob('*.py')))} files, {result.stdout.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stdout

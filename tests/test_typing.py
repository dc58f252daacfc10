"""The public modules are typed for projects outside of the workspace, which use no plugins of mypy."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
from tequipy_platform.web import HeaderSettings

AuthSettings(bcrypt_cost=12, policy=AuthPolicy(refresh_grace=timedelta(seconds=30)))
RateLimitSettings()
CacheSettings(url=SecretStr("redis://localhost"), prefix="shop", policies=CACHE_POLICIES)
LimiterSettings()
ObservabilitySettings(log_level="INFO")
DatabaseSettings(url=SecretStr("postgresql+asyncpg://localhost/shop"), pool_size=3)
HeaderSettings(cors_origins=("https://shop.example",))
MailSettings()
CelerySettings(broker_url=SecretStr("redis://localhost/1"))
StorageSettings()
"""


def examples() -> dict[str, str]:
    """Return the complete examples of the packages' READMEs, by file name; they import all that they use."""
    found: dict[str, str] = {}
    for readme in sorted(ROOT.glob("packages/*/README.md")):
        blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
        whole = [
            block for block in blocks if re.match(r"(import|from) .*\n(.*\n)*(async def main|def create|app = )", block)
        ]
        assert whole, readme
        found |= {f"{readme.parent.name}_{number}.py": block for number, block in enumerate(whole)}
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the examples and with the settings of every package."""
    folder = tmp_path_factory.mktemp("project")
    for name, content in (examples() | {"settings.py": SETTINGS}).items():
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
    """Strict checkers accept the examples of the READMEs and the settings of every package."""
    command = [str(Path(sys.executable).with_name(checker[0])), *checker[1:]]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=110)
    print(f"\n{checker[0]}: {len(list(project.glob('*.py')))} files, {result.stdout.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stdout

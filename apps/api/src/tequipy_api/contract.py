"""The HTTP contract as a document: what the app promises, whatever the environment says."""

import json

from pydantic_settings import SettingsConfigDict

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings


def openapi_document() -> str:
    """Return the contract as it is committed: JSON, indented, with a newline at its end."""
    settings = _SettingsOfTheContract.model_validate(
        {
            "environment": "test",
            "public_url": "https://api.example.com",
            "database": {"url": "postgresql+asyncpg://localhost/none"},
            "cache": {"url": "redis://localhost"},
        }
    )
    return json.dumps(create_app(settings).openapi(), indent=2, ensure_ascii=False) + "\n"


class _SettingsOfTheContract(ApiSettings):
    """Settings that no environment changes: no variable has this prefix; nothing is opened with them."""

    model_config = SettingsConfigDict(env_prefix="(contract) ", env_file=None)

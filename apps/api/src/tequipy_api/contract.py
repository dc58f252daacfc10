"""The HTTP contract as an OpenAPI document that does not depend on the environment."""

import json

from pydantic_settings import SettingsConfigDict

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings


def openapi_document() -> str:
    """Return the contract in its committed form: indented JSON with a newline at the end."""
    settings = _ContractSettings.model_validate(
        {
            "environment": "test",
            "public_url": "https://api.example.com",
            "database": {"url": "postgresql+asyncpg://localhost/none"},
            "cache": {"url": "redis://localhost"},
        }
    )
    return json.dumps(create_app(settings).openapi(), indent=2, ensure_ascii=False) + "\n"


class _ContractSettings(ApiSettings):
    """Settings that no variable can change, because none has this prefix; nothing is opened with them."""

    model_config = SettingsConfigDict(env_prefix="(contract) ", env_file=None)

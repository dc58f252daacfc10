"""The HTTP contract: the OpenAPI document and the routes, which depend on the code alone."""

import json
from collections.abc import Iterator

from fastapi import FastAPI
from pydantic_settings import SettingsConfigDict

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_platform.web import route_reports


def openapi_document() -> str:
    """Return the contract in its committed form: indented JSON with a newline at the end."""
    return json.dumps(_app().openapi(), indent=2, ensure_ascii=False) + "\n"


def route_lines() -> Iterator[str]:
    """Yield a line for each method of each route: whether it is compiled, and if not, why."""
    reports = route_reports(_app())
    width = max(len(report.path) for report in reports)
    for report in reports:
        outcome = "compiled" if report.reason is None else f"FastAPI: {report.reason}"
        yield f"{report.method:7} {report.path:{width}} {outcome}"


def _app() -> FastAPI:
    settings = _ContractSettings.model_validate(
        {
            "environment": "test",
            "public_url": "https://api.example.com",
            "database": {"url": "postgresql+asyncpg://localhost/none"},
            "cache": {"url": "redis://localhost"},
        }
    )
    return create_app(settings)


class _ContractSettings(ApiSettings):
    """Settings that no variable can change, because none has this prefix; nothing is opened with them."""

    model_config = SettingsConfigDict(env_prefix="(contract) ", env_file=None)

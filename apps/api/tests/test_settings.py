"""The API's settings as a whole: what is told once, and what production refuses."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tequipy_api.settings import ApiSettings
from tequipy_platform.wiring import AppSettings

OWN = "s" * 32
SAFE: dict[str, dict[str, Any]] = {
    "auth": {"peppers": {1: OWN}, "refresh_keys": {1: OWN}, "key_encryption_key": OWN, "pseudonym_key": OWN},
    "observability": {"metrics_token": OWN},
}


def names(model: type[BaseModel]) -> set[str]:
    """Return the names of a section's fields, those of its own sections too."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= names(field.annotation)
    return found


def production(settings: ApiSettings, **changes: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return what production refuses of settings that are safe but for these changes."""
    values = settings.model_dump(exclude={"auth", "observability"}) | {"environment": "production"}
    for name, section in (SAFE | changes).items():
        values[name] = SAFE.get(name, {}) | section
    try:
        ApiSettings.model_validate(values)
    except ValidationError as error:
        return [tuple(str(step) for step in fault["loc"]) for fault in error.errors()]
    return []


def test_no_section_repeats_what_the_app_is_told_once() -> None:
    """Name, version, environment and public URL have one variable each, so no two can disagree."""
    sections = [
        field.annotation
        for field in ApiSettings.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ]
    assert len(sections) > 5
    assert not set(AppSettings.model_fields) & set().union(*(names(section) for section in sections))


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, []),
        ({"auth": {"peppers": {1: "local-only-" + OWN}}}, [("auth", "peppers")]),
        ({"observability": {"metrics_token": None}}, [("observability", "metrics_token")]),
        ({"observability": {"metrics_token": None, "metrics_port": 9000}}, []),
        ({"observability": {"log_level": "DEBUG"}}, [("observability", "log_level")]),
        ({"storage": {"url": "memory://"}}, [("storage", "url")]),
        ({"headers": {"cors_origins": ["*"]}}, [("headers", "cors_origins")]),
    ],
    ids=str,
)
def test_production_refuses_what_is_unsafe(
    settings: ApiSettings, changes: dict[str, dict[str, Any]], refused: list[tuple[str, ...]]
) -> None:
    """Built-in secrets, open metrics, debug, memory for storage and CORS for everybody; each alone, by its name."""
    assert production(settings, **changes) == refused

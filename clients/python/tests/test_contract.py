"""The generated package: functions for all operations, models that show no secret."""

import inspect
import json
from pathlib import Path

import attrs
import pytest

from tequipy_client.contract import models
from tequipy_client.contract.api import accounts_and_sessions, administration, reports, service

DOCUMENT = json.loads(Path(__file__).parents[3].joinpath("apps/api/openapi.json").read_text(encoding="utf-8"))
TAGS = (accounts_and_sessions, administration, reports, service)
SECRETS = [
    model
    for model in (getattr(models, name) for name in models.__all__)
    if attrs.has(model) and any(word in field.name for field in attrs.fields(model) for word in ("token", "password"))
]


def test_every_operation_has_a_function() -> None:
    """Each operation of the document is one function, which returns the value of its success."""
    operations = {operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()}
    functions = {name for tag in TAGS for name in tag.__all__ if inspect.iscoroutinefunction(getattr(tag, name))}
    assert functions == operations


@pytest.mark.parametrize("model", SECRETS)
def test_a_model_with_a_secret_shows_no_value(model: type[attrs.AttrsInstance]) -> None:
    """Passwords and tokens are not in the `repr` of a body or a response."""
    assert model.__repr__ is object.__repr__


def test_models_with_secrets_are_found() -> None:
    """Among them are the body of a login and its response."""
    assert {models.LoginBody, models.Tokens, models.ChangePasswordBody} <= set(SECRETS)

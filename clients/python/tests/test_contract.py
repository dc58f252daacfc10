"""The generated package: functions for all operations, models that show no secret."""

import inspect
import json
from pathlib import Path
from typing import get_args

import attrs
import pytest

from tequipy_client.contract import models
from tequipy_client.contract.api import accounts_and_sessions, administration, reports, service
from tequipy_client.contract.codes import ProblemCode
from tequipy_client.contract.types import Unset

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


def test_the_codes_of_all_problems_are_a_type() -> None:
    """Comparing with a code that the contract does not have is an error of the type checker."""
    codes = set(get_args(ProblemCode))
    assert {"invalid_credentials", "rate_limited", "refresh_superseded", "weak_password"} <= codes
    assert codes == DOCUMENT["components"]["schemas"]["Problem"]["discriminator"]["mapping"].keys()


@pytest.mark.parametrize("model", SECRETS)
def test_a_model_with_a_secret_shows_no_value(model: type[attrs.AttrsInstance]) -> None:
    """Passwords and tokens are not in the `repr` of a body or a response."""
    assert model.__repr__ is object.__repr__


def test_models_with_secrets_are_found() -> None:
    """Among them are the body of a login and its response."""
    assert {models.LoginBody, models.Tokens, models.ChangePasswordBody} <= set(SECRETS)


def test_no_header_field_may_be_none() -> None:
    """Type checkers refuse None for a header field, which httpx cannot send."""
    for function in (reports.request_report, administration.set_roles, administration.invite):
        (field,) = {"idempotency_key", "if_match"} & inspect.signature(function).parameters.keys()
        assert inspect.signature(function).parameters[field].annotation == str | Unset

"""The HTTP contract: the committed document is the code's, it says all, and the app keeps it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tequipy_api.app import create_app
from tequipy_api.contract import openapi_document
from tequipy_api.settings import ApiSettings

CONTRACT = Path(__file__).parents[1] / "openapi.json"

schema = schemathesis.openapi.from_path(CONTRACT)


@pytest.fixture
def served_app(settings: ApiSettings) -> FastAPI:
    """The app; schemathesis runs its lifespan, in a loop of its own."""
    return create_app(settings)


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_app_keeps_its_contract(case: schemathesis.Case[Any], served_app: FastAPI) -> None:
    """Whatever is sent, no answer is a server error, and each has a status, a type and a shape that were promised."""
    case.call_and_validate(
        app=served_app,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )


def test_the_committed_contract_is_that_of_the_code() -> None:
    """Renew it by `tequipy-api openapi > apps/api/openapi.json`."""
    assert CONTRACT.read_text(encoding="utf-8") == openapi_document()


def test_the_command_compares(run_command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """`openapi` prints the contract without any settings; `--check` is silent when a file is the same, else says so."""
    nothing = {"TEQUIPY_ENVIRONMENT": "", "TEQUIPY_DATABASE__URL": "rubbish", "TEQUIPY_APP_NAME": "other"}
    printed = run_command("openapi", **nothing)
    assert (printed.returncode, printed.stdout) == (0, CONTRACT.read_text(encoding="utf-8"))
    same = run_command("openapi", "--check", str(CONTRACT), **nothing)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")
    other = tmp_path / "other.json"
    other.write_text(printed.stdout + "\n")
    differing = run_command("openapi", "--check", str(other))
    assert differing.returncode == 1
    assert f"tequipy-api openapi > {other}" in differing.stderr


def test_every_operation_says_what_it_answers() -> None:
    """Readable names without doubles, a summary, and for each error its codes with an example of each."""
    document = json.loads(openapi_document())
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert sorted(names) == sorted(set(names))
    assert {"register", "verify_email", "login", "refresh", "logout", "get_me", "get_jwks"} <= set(names)
    for operation in operations:
        assert operation["description"]
        for answer in operation["responses"].values():
            problem = answer.get("content", {}).get("application/problem+json")
            if problem is not None:
                codes = problem["schema"]["properties"]["code"]["enum"]
                assert problem["examples"].keys() == set(codes)

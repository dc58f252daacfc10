"""The HTTP contract: the committed document equals the code's, is complete, and the app follows it."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tequipy_api.app import create_app
from tequipy_api.contract import openapi_document
from tequipy_api.settings import ApiSettings
from tequipy_auth import AuthPolicy
from tequipy_auth.api import RATE_POLICIES

CONTRACT = Path(__file__).parents[1] / "openapi.json"

schema = schemathesis.openapi.from_path(CONTRACT)
# Requests at the limits of the schema are part of the short test; every process generates them when it collects tests.
without_limits = schemathesis.openapi.from_path(CONTRACT)
without_limits.config.phases.coverage.enabled = False


@pytest.fixture
def served_app(settings: ApiSettings) -> FastAPI:
    """Return the app without rate limits; schemathesis runs its lifespan on its own event loop."""
    unlimited = {"rate_limits": dict.fromkeys(["default", *RATE_POLICIES], "off")}
    return create_app(ApiSettings.model_validate(settings.model_dump() | unlimited))


def keeps_its_contract(case: schemathesis.Case[Any], app: FastAPI) -> None:
    # Without one check: valid input by the schema may break a rule that a schema cannot express (a weak password).
    case.call_and_validate(app=app, excluded_checks=[positive_data_acceptance])


@schema.parametrize()
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_the_app_keeps_its_contract(case: schemathesis.Case[Any], served_app: FastAPI) -> None:
    """No generated request causes a server error, and each response has a documented status, type and schema."""
    keeps_its_contract(case, served_app)


@pytest.mark.prove
@pytest.mark.timeout(1200)
@without_limits.parametrize()
@settings(max_examples=500, suppress_health_check=list(HealthCheck))
def test_the_app_keeps_its_contract_for_long(case: schemathesis.Case[Any], served_app: FastAPI) -> None:
    """The same with 500 instead of 10 random requests per route."""
    keeps_its_contract(case, served_app)


def test_the_committed_contract_is_that_of_the_code() -> None:
    """The committed document is up to date; update it by `tequipy-api openapi > apps/api/openapi.json`."""
    assert CONTRACT.read_text(encoding="utf-8") == openapi_document()


def test_the_command_compares(run_command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """`openapi` works without settings; `--check` prints nothing for an equal file, and reports a different one."""
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


def codes_of(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Return the error codes of the component that a response refers to."""
    component = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "oneOf" in component:
        return [code for each in component["oneOf"] for code in codes_of(document, each)]
    return [component["properties"]["code"]["const"]]


def test_every_operation_documents_its_responses() -> None:
    """Operations have unique readable ids and a summary, and each error has its codes with examples."""
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
                codes = codes_of(document, problem["schema"])
                shown = [document["components"]["examples"][name]["value"]["code"] for name in problem["examples"]]
                assert set(shown) <= set(codes)
                assert "Problem" in problem["schema"]["$ref"].split("/") or shown == codes


def test_limited_operations_document_the_refusal() -> None:
    """Each 429 may be the rate limit's, also that of a route with a lock of its own."""
    document = json.loads(openapi_document())
    refusals = [
        each["responses"]["429"]
        for path in document["paths"].values()
        for each in path.values()
        if "429" in each["responses"]
    ]
    codes = [codes_of(document, each["content"]["application/problem+json"]["schema"]) for each in refusals]
    assert {"rate_limited"} < {code for each in codes for code in each}
    assert [each for each in codes if "rate_limited" not in each] == []


def test_conditional_requests_are_documented() -> None:
    """`If-None-Match`, `ETag` and 304, and `If-Match` with 412, are in the contract of the routes that honour them."""
    paths = json.loads(openapi_document())["paths"]
    read, change = paths["/api/v1/users/{id}"]["get"], paths["/api/v1/users/{id}/roles"]["put"]
    assert [each["name"] for each in read["parameters"]] == ["id", "If-None-Match"]
    assert ["ETag" in read["responses"][status]["headers"] for status in ("200", "304")] == [True, True]
    assert [each["name"] for each in change["parameters"]] == ["id", "If-Match"]
    assert "412" in change["responses"]
    report, content = (paths[f"/api/v1/reports/{path}"]["get"] for path in ("{id}", "{id}/content"))
    assert [each["name"] for each in report["parameters"]] == ["id", "If-None-Match"]
    assert [each["name"] for each in content["parameters"]] == ["id", "Range", "If-Range", "If-None-Match"]
    for read in (report, content):
        assert ["ETag" in read["responses"][status]["headers"] for status in ("200", "304")] == [True, True]
    assert {"ETag", "Content-Range", "Content-Disposition"} <= content["responses"]["206"]["headers"].keys()
    assert "Content-Range" in content["responses"]["416"]["headers"]
    assert "Content-Disposition" in paths["/api/v1/auth/me/export"]["get"]["responses"]["200"]["headers"]
    assert "Location" in paths["/api/v1/reports"]["post"]["responses"]["202"]["headers"]


def test_header_fields_are_documented() -> None:
    """Responses have the header fields that clients act on: of limits, retries, authentication, cookies and ids."""
    paths = json.loads(openapi_document())["paths"]
    responses = paths["/api/v1/auth/login"]["post"]["responses"]
    limits = {"X-Correlation-ID", "RateLimit", "RateLimit-Policy"}
    assert responses["200"]["headers"].keys() == limits | {"Set-Cookie"}
    assert responses["401"]["headers"].keys() == limits | {"WWW-Authenticate"}
    assert responses["429"]["headers"].keys() == limits | {"Retry-After"}
    assert responses["503"]["headers"].keys() == limits | {"Retry-After"}
    assert paths["/api/v1/users"]["get"]["responses"]["403"]["headers"].keys() == limits
    assert paths["/api/v1/health"]["get"]["responses"]["200"]["headers"].keys() == {"X-Correlation-ID"}
    for path, status in {"refresh": "401", "logout": "204", "logout-all": "204", "reauthenticate": "200"}.items():
        assert "Set-Cookie" in paths[f"/api/v1/auth/{path}"]["post"]["responses"][status]["headers"]


def test_every_operation_says_how_callers_authenticate() -> None:
    """Public operations say so; others take the access token, or the refresh cookie, or work without either."""
    document = json.loads(openapi_document())
    paths, schemes = document["paths"], document["components"]["securitySchemes"]
    assert [schemes["RefreshCookie"][name] for name in ("type", "in", "name")] == ["apiKey", "cookie", "__Host-refresh"]
    assert schemes["AccessToken"]["scheme"] == "bearer"
    assert paths["/api/v1/auth/login"]["post"]["security"] == []
    assert paths["/api/v1/auth/refresh"]["post"]["security"] == [{"RefreshCookie": []}, {}]
    assert paths["/api/v1/auth/logout"]["post"]["security"] == [{"AccessToken": []}, {"RefreshCookie": []}, {}]
    assert paths["/api/v1/auth/me"]["get"]["security"] == [{"AccessToken": []}]


def test_the_document_describes_the_api() -> None:
    """The document has a server, contact, licence and described tags, and each summary is a clause of its own."""
    document = json.loads(openapi_document())
    assert document["servers"] == [{"url": "/", "description": "The host of this document."}]
    assert {"description", "contact", "license", "summary"} <= document["info"].keys()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert {tag for operation in operations for tag in operation["tags"]} == tags.keys()
    for operation in operations:
        assert operation["summary"].lower() != operation["operationId"].replace("_", " ")
        assert operation["description"].replace("\n", " ").startswith(operation["summary"])


def test_limits_of_strings_are_those_of_what_is_sent() -> None:
    """New passwords have the limits of the policy, and names and addresses those that hold before trimming."""
    schemas = json.loads(openapi_document())["components"]["schemas"]
    for model, field in (("RegisterBody", "password"), ("ResetPasswordBody", "new_password")):
        limits = [schemas[model]["properties"][field][name] for name in ("minLength", "maxLength")]
        assert limits == [AuthPolicy().password_min_length, AuthPolicy().password_max_length]
    assert schemas["LoginBody"]["properties"]["password"]["maxLength"] == 1024
    name = schemas["RegisterBody"]["properties"]["name"]["anyOf"][0]
    assert [name["minLength"], name["maxLength"]] == [1, 100]
    assert [re.search(name["pattern"], text) is not None for text in ("Ada", " Ada ", " ", "A\nB")] == [1, 1, 0, 0]


def test_no_request_body_allows_arbitrary_names() -> None:
    """Objects in request bodies allow no other fields, so an error's pointer cannot contain a client's text."""
    document = json.loads(openapi_document())
    sent = [
        operation.get("requestBody", {})
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    bodies = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(sent)))
    assert len(bodies) > 5
    schemas = document["components"]["schemas"]
    for name in bodies:
        assert schemas[name]["additionalProperties"] is False, name
        assert "additionalProperties" not in json.dumps(schemas[name]["properties"]), name


def test_every_operation_has_an_example_of_what_goes_in_and_out() -> None:
    """Each JSON body of the contract has an example with all fields."""
    document = json.loads(openapi_document())

    def shown(schema: dict[str, Any]) -> bool:
        if "$ref" in schema:
            return shown(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        if {"examples", "example", "const", "enum"} & schema.keys():
            return True
        if "anyOf" in schema:  # a value or null, a body or no body
            return any(shown(each) for each in schema["anyOf"])
        if "items" in schema:
            return shown(schema["items"])
        return "properties" in schema and all(shown(each) for each in schema["properties"].values())

    bodies = {
        (path, method, kind): content["application/json"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for kind, each in {"request": operation.get("requestBody", {}), **operation["responses"]}.items()
        if "application/json" in (content := each.get("content", {}))
    }
    assert [where for where, body in bodies.items() if not ("examples" in body or shown(body["schema"]))] == []
    assert bodies

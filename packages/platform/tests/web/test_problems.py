"""Problem documents in OpenAPI."""

from collections.abc import Mapping
from typing import Any, ClassVar

from fastapi import FastAPI

from tequipy_platform import JSON, DomainError, Invalid, NotFound, TooMany, Unauthenticated, Unavailable
from tequipy_platform.web import BODY_PROBLEMS, StrictModel, document_problems, extend_openapi, problem_responses


class InvalidCredentials(Unauthenticated):
    """An error of another package."""

    code = "invalid_credentials"
    title: ClassVar[str] = "Invalid credentials"


class WeakPassword(Invalid):
    """Another one, of a kind with the same status as a built-in problem."""

    code = "weak_password"
    member_schemas: ClassVar[Mapping[str, JSON]] = {
        "reasons": {"type": "array", "items": {"type": "string"}, "examples": [["common"]]}
    }


class Body(StrictModel):
    name: str


class Quota(TooMany):
    """A third one, which is refused for the same reason as the built-in problem."""

    code = "quota_reached"


def document_of(*errors: type[DomainError], later: type[DomainError] | None = None) -> dict[str, Any]:
    """Return the OpenAPI document of an app with one route, which has these errors."""
    app = FastAPI()

    @app.post("/things", name="make_thing", responses=problem_responses(*errors))
    async def make(body: Body) -> Body:
        return body

    if later is not None:
        extend_openapi(app, lambda document: document_problems(document["paths"]["/things"]["post"], later))
    extend_openapi(app, lambda document: document["paths"]["/things"]["post"].update(operationId="make_thing"))
    return app.openapi()


def problem_of(document: dict[str, Any], status: str) -> dict[str, Any]:
    content: dict[str, Any] = document["paths"]["/things"]["post"]["responses"][status]["content"]
    assert list(content) == ["application/problem+json"]
    problem: dict[str, Any] = content["application/problem+json"]
    return problem


def test_a_problem_is_a_named_schema_with_one_code() -> None:
    """A response with one code refers to a component that is named after the code, and to its example."""
    document = document_of(NotFound)
    assert problem_of(document, "404") == {
        "schema": {"$ref": "#/components/schemas/NotFoundProblem"},
        "examples": {"not_found": {"$ref": "#/components/examples/not_found"}},
    }
    schema = document["components"]["schemas"]["NotFoundProblem"]
    assert schema["required"] == ["type", "title", "status", "detail", "code", "correlation_id"]
    assert [schema["properties"][name]["const"] for name in ("code", "status")] == ["not_found", 404]
    example = document["components"]["examples"]["not_found"]["value"]
    assert {name: example[name] for name in ("type", "status")} == {
        "type": "urn:tequipy:problem:not_found",
        "status": 404,
    }


def test_several_codes_are_a_named_union() -> None:
    """A response with several codes refers to a union, which its discriminator resolves by the code."""
    document = document_of(Unauthenticated, InvalidCredentials)
    name = "InvalidCredentialsOrUnauthenticatedProblem"
    assert problem_of(document, "401")["schema"] == {"$ref": f"#/components/schemas/{name}"}
    mapping = {
        "invalid_credentials": "#/components/schemas/InvalidCredentialsProblem",
        "unauthenticated": "#/components/schemas/UnauthenticatedProblem",
    }
    assert document["components"]["schemas"][name] == {
        "title": name,
        "oneOf": [{"$ref": target} for target in mapping.values()],
        "discriminator": {"propertyName": "code", "mapping": mapping},
    }


def test_a_union_of_many_codes_is_named_after_its_operation() -> None:
    """The name of a union of more than three codes consists of the operation and the status."""
    codes = [type(name, (Unauthenticated,), {"code": name}) for name in ("one", "two", "three", "four")]
    document = document_of(*codes)
    assert problem_of(document, "401")["schema"] == {"$ref": "#/components/schemas/MakeThingUnauthorizedProblem"}


def test_errors_are_added_beside_those_of_the_same_status() -> None:
    """An error that is added to an operation joins the documented ones, once, and another status is new."""
    document = document_of(Quota, Quota, later=TooMany)
    assert list(problem_of(document, "429")["examples"]) == ["quota_reached", "rate_limited"]
    assert problem_of(document_of(TooMany, later=TooMany), "429") == problem_of(document_of(TooMany), "429")
    assert "404" in document_of(TooMany, later=NotFound)["paths"]["/things"]["post"]["responses"]


def test_members_of_an_error_are_documented() -> None:
    """Extension members have a schema and an example, and the items of an array a name, if they have a title."""
    schemas = document_of(Invalid, WeakPassword)["components"]["schemas"]
    assert schemas["ValidationProblem"]["properties"]["errors"]["items"] == {"$ref": "#/components/schemas/FieldError"}
    assert schemas["WeakPasswordProblem"]["properties"]["reasons"]["items"] == {"type": "string"}
    assert "errors" not in schemas["WeakPasswordProblem"]["properties"]
    example = document_of(WeakPassword)["components"]["examples"]["weak_password"]["value"]
    assert example["reasons"] == ["common"]


def test_operations_without_a_client_error_have_any_problem() -> None:
    """`Problem` is any problem of the document or of unknown routes, for operations that document no client error."""
    app = FastAPI()
    app.add_api_route("/things", lambda: None, methods=["POST"], responses=problem_responses(Unavailable))
    extend_openapi(app, lambda _: None)
    document = app.openapi()
    assert problem_of(document, "4XX")["schema"] == {"$ref": "#/components/schemas/Problem"}
    shown = problem_of(document, "4XX")["examples"]
    assert {document["components"]["examples"][code]["value"]["status"] // 100 for code in shown} == {4}
    codes = document["components"]["schemas"]["Problem"]["discriminator"]["mapping"]
    assert {"unavailable", "head_too_large", "method_not_allowed", "internal_error"} <= codes.keys()
    assert list(document["paths"]["/things"]["post"]["responses"]) == ["200", "4XX", "503"]


def test_responses_of_the_host_stay() -> None:
    """A problem is added beside other content of its status, and does not replace a problem of the host's own."""
    own = {"schema": {"oneOf": [{"$ref": "#/components/schemas/Own"}]}, "examples": {"own": {"value": {}}}}
    responses: dict[int | str, dict[str, Any]] = {
        404: {"content": {"application/problem+json": own}},
        429: {"description": "Too much."},
    }
    app = FastAPI()
    app.add_api_route("/things", lambda: None, methods=["POST"], responses=responses)
    extend_openapi(app, lambda document: document_problems(document["paths"]["/things"]["post"], TooMany, NotFound))
    document = app.openapi()
    assert problem_of(document, "404") == own
    assert problem_of(document, "429")["schema"] == {"$ref": "#/components/schemas/RateLimitedProblem"}
    assert document["paths"]["/things"]["post"]["responses"]["429"]["description"] == "Too much."


def test_a_summary_of_the_route_stays() -> None:
    """The beginning of the description replaces the name of the function, but no summary that the route has."""
    app = FastAPI()

    def make_thing() -> None:
        """Make a thing; it is small."""

    app.add_api_route("/things", make_thing, methods=["POST"])
    app.add_api_route("/things", make_thing, methods=["PUT"], summary="Put it")
    extend_openapi(app, lambda _: None)
    operations = app.openapi()["paths"]["/things"]
    assert [operations[method]["summary"] for method in ("post", "put")] == ["Make a thing", "Put it"]


def test_openapi_shows_problems_instead_of_the_frameworks_errors() -> None:
    """A route that declares its problems has no other error responses in OpenAPI."""
    document = document_of(WeakPassword, *BODY_PROBLEMS)
    assert set(document["paths"]["/things"]["post"]["responses"]) == {"200", "400", "408", "413", "415", "422"}
    assert list(problem_of(document, "422")["examples"]) == ["validation_failed", "weak_password"]

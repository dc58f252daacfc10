"""Problem documents in OpenAPI."""

from typing import ClassVar

from fastapi import FastAPI

from tequipy_platform import Invalid, NotFound, Unauthenticated
from tequipy_platform.web import BODY_PROBLEMS, StrictModel, document_problems, problem_responses


class InvalidCredentials(Unauthenticated):
    """An error of another package."""

    code = "invalid_credentials"
    title: ClassVar[str] = "Invalid credentials"


class WeakPassword(Invalid):
    """Another one, of a kind with the same status as a built-in problem."""

    code = "weak_password"


class Body(StrictModel):
    name: str


def test_errors_of_one_status_share_a_schema_with_their_codes() -> None:
    """Each status has one schema with an enumeration of its codes, and an example of each code."""
    responses = problem_responses(InvalidCredentials, Unauthenticated, NotFound)
    assert list(responses) == [401, 404]
    content = responses[401]["content"]["application/problem+json"]
    assert content["schema"]["properties"]["code"]["enum"] == ["invalid_credentials", "unauthenticated"]
    assert content["examples"]["invalid_credentials"]["value"]["title"] == "Invalid credentials"


def test_errors_are_added_beside_those_of_the_same_status() -> None:
    """An error that is added to an operation joins the documented ones, once, and another status is new."""
    operation = {"responses": {str(status): each for status, each in problem_responses(InvalidCredentials).items()}}
    for _ in range(2):
        document_problems(operation, Unauthenticated, NotFound)
    content = operation["responses"]["401"]["content"]["application/problem+json"]
    assert content["schema"]["properties"]["code"]["enum"] == ["invalid_credentials", "unauthenticated"]
    assert list(content["examples"]) == ["invalid_credentials", "unauthenticated"]
    assert operation["responses"].keys() == {"401", "404"}


def test_openapi_shows_problems_instead_of_the_frameworks_errors() -> None:
    """A route that declares its problems has no other error responses in OpenAPI."""
    app = FastAPI()

    @app.post("/things", responses=problem_responses(WeakPassword, *BODY_PROBLEMS))
    async def make(body: Body) -> Body:
        return body

    responses = app.openapi()["paths"]["/things"]["post"]["responses"]
    assert set(responses) == {"200", "400", "408", "413", "415", "422"}
    content = responses["422"]["content"]
    assert list(content) == ["application/problem+json"]
    assert content["application/problem+json"]["schema"]["properties"]["code"]["enum"] == [
        "weak_password",
        "validation_failed",
    ]

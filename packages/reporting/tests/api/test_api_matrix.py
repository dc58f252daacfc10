"""Every route with every kind of caller: what is expected, and what is answered."""

from typing import Final

import pytest

from .conftest import World
from .test_api_reports import BODY

UNKNOWN = "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"
READ, WRITE = "reports:read", "reports:write"
# The routes of the contract, with the permission that each requires.
ROUTES: Final = {
    "POST ": WRITE,
    "GET ": READ,
    "GET /daily-activity": READ,
    "GET /{id}": READ,
    "GET /{id}/content": READ,
    "DELETE /{id}": WRITE,
}
GRANTED: Final = {"support": {READ}, "admin": {READ, WRITE}}


def test_the_routes_are_those_of_the_contract(world: World) -> None:
    """The app serves exactly the routes of the contract below its prefix."""
    served = {
        f"{method.upper()} {path.removeprefix('/api/v1/reports')}"
        for path, operations in world.app.openapi()["paths"].items()
        for method in operations
        if path.startswith("/api/v1/reports")
    }
    assert served == set(ROUTES)


@pytest.mark.parametrize("caller", ["nobody", "disabled", "user", "support", "admin"])
@pytest.mark.parametrize("route", ROUTES)
async def test_each_caller_is_served_or_refused(route: str, caller: str, world: World) -> None:
    """Without a token, or with that of a disabled account, the answer is 401, without the permission 403."""
    report_id = (await world.call("POST", json=BODY)).json()["id"]
    method, _, template = route.partition(" ")
    for identifier in (report_id, UNKNOWN):
        answer = await world.call(
            method,
            template.format(id=identifier),
            caller=caller,
            json=BODY if method == "POST" else None,
            params={"from": BODY["from"], "to": BODY["to"]} if template == "/daily-activity" else None,
        )
        code = answer.json().get("code") if answer.content else None
        print(f"\n{route} {caller}: {answer.status_code} {code or ''}")
        if caller == "nobody":
            assert (answer.status_code, code) == (401, "unauthenticated")
        elif caller == "disabled":
            assert (answer.status_code, code) == (401, "invalid_token")
        elif ROUTES[route] not in GRANTED.get(caller, set()):
            assert (answer.status_code, code) == (403, "forbidden")
        elif "{id}" in route and identifier == UNKNOWN:
            assert (answer.status_code, code) == (404, "not_found")
        else:
            assert answer.status_code in {200, 202, 204} or code == "report_not_ready"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_only_an_id_is_the_path_of_a_report(method: str, world: World) -> None:
    """Other text has no route, as elsewhere in the API: it is 404, or 405 if it is the path of another route."""
    for path, status in (("/x", 404), ("/x/content", 404), ("/daily-activity", 422 if method == "GET" else 405)):
        assert (await world.call(method, path)).status_code == status

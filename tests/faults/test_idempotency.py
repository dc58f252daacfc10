"""A client that repeats its request with the same `Idempotency-Key` after a process died has one effect."""

import sys
from pathlib import Path

import httpx
import pytest

from tequipy_devstack.proving import Deployment, eventually
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD
from tequipy_devstack.servers import PostgresServer

INVITATIONS = "/api/v1/users/invitations"
KILLED_API = Path(__file__).with_name("api_program.py")
pytestmark = pytest.mark.timeout(300)


@pytest.mark.prove
@pytest.mark.parametrize("deaths", [pytest.param(3, id="short", marks=pytest.mark.quick), pytest.param(50, id="long")])
def test_an_api_killed_before_it_responds_invites_once(
    deployment: Deployment, postgres: PostgresServer, deaths: int
) -> None:
    """After `kill -9` between commit and response, the repeat gets 202 from the kept response, and no second mail."""

    def count(table: str) -> int:
        return int(postgres.execute(f"select count(*) from {table}", "tequipy"))  # noqa: S608 -- constants

    outbox = "platform.outbox where payload ->> 'mail' = 'invitation'"
    before = count("auth.invitations"), count(outbox)
    with deployment.api() as api:
        login = {"email": ADMIN, "password": PASSWORD, "token_delivery": "body"}
        token = httpx.post(f"{api.url}/api/v1/auth/login", json=login).raise_for_status().json()["access_token"]
    with deployment.api(sys.executable, KILLED_API) as mortal:
        for number in range(deaths):
            body = {"email": f"invited{number}-{deaths}@example.com"}
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"{number}-{deaths}"}
            eventually("the API is up", mortal.is_ready)
            with pytest.raises(httpx.TransportError):
                httpx.post(f"{mortal.url}{INVITATIONS}", json=body, headers=headers)
            eventually("the API is up again", mortal.is_ready)
            repeats = [httpx.post(f"{mortal.url}{INVITATIONS}", json=body, headers=headers) for _ in range(2)]
            assert [(repeat.status_code, repeat.json()) for repeat in repeats] == [(202, {"status": "accepted"})] * 2
            changed = httpx.post(f"{mortal.url}{INVITATIONS}", json={"email": ADMIN}, headers=headers)
            assert (changed.status_code, changed.json()["code"]) == (422, "idempotency_key_reused")
    after = count("auth.invitations"), count(outbox)
    print(f"\nAPI killed {deaths} times between commit and response: {after[1] - before[1]} mails added")
    assert (after[0] - before[0], after[1] - before[1]) == (deaths, deaths)

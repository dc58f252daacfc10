"""Peppers and refresh keys that are replaced while processes with the old and the new settings run side by side."""

from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Final

import httpx
import pytest

from .instance import Instance, StartApi

LOGIN: Final = {"email": "root@example.com", "password": "correct horse battery staple"}
OLD, NEW = ("the old secret, of 32 characters and more", "the new secret, of 32 characters and more")
ONE: Final = {"TEQUIPY_AUTH__PEPPERS__1": OLD, "TEQUIPY_AUTH__REFRESH_KEYS__1": OLD}
BOTH: Final = ONE | {"TEQUIPY_AUTH__PEPPERS__2": NEW, "TEQUIPY_AUTH__REFRESH_KEYS__2": NEW}
NOT_YET: Final = BOTH | {"TEQUIPY_AUTH__PEPPER_VERSION": "1", "TEQUIPY_AUTH__REFRESH_KEY_VERSION": "1"}


def log_in(api: Instance) -> httpx.Response:
    return httpx.post(f"{api.url}/api/v1/auth/login", json=LOGIN)


def refresh(api: Instance, cookie: str) -> httpx.Response:
    return httpx.post(f"{api.url}/api/v1/auth/refresh", json={}, headers={"Cookie": cookie})


def cookie_of(response: httpx.Response) -> str:
    return response.headers["Set-Cookie"].partition(";")[0]


@pytest.mark.parametrize(("before", "after"), [(ONE, NOT_YET), (NOT_YET, BOTH)], ids=["step 1", "step 2"])
def test_both_sides_of_a_roll_serve_the_same_accounts(
    start_api: StartApi,
    run_command: Callable[..., CompletedProcess[str]],
    before: dict[str, str],
    after: dict[str, str],
) -> None:
    """In each step of a rotation an account logs in at processes of both settings in turn, and a repeated refresh gets
    the same successor from either."""
    created = run_command("create-admin", "--email", LOGIN["email"], stdin=LOGIN["password"], **before)
    assert created.returncode == 0, created.stderr
    old, new = start_api(**before), start_api(**after)
    for api in (old, new):
        api.wait_until_ready()
    for api in (new, old, new, old):
        assert log_in(api).status_code == 200
    for first, second in ((new, old), (old, new)):
        cookie = cookie_of(log_in(first))
        successors = [refresh(api, cookie) for api in (first, second)]
        assert [response.status_code for response in successors] == [200, 200]
        assert cookie_of(successors[0]) == cookie_of(successors[1])

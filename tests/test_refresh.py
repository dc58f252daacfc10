"""Refresh tokens on two real processes: parallel tabs, lost responses and theft."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import httpx
import pytest

from tequipy_devstack.proving import Api, Deployment, eventually, fetch
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD
from tequipy_devstack.servers import PostgresServer

pytestmark = pytest.mark.xdist_group("sessions")

COOKIE = "__Host-refresh"
GRACE = 60
CALLS = {"Content-Type": "application/json"}
DATABASE = "tequipy"


@pytest.fixture(scope="module")
def apis(deployment: Deployment) -> Iterator[tuple[Api, Api]]:
    """Yield two API processes on one PostgreSQL and one Valkey."""
    with ExitStack() as stack:
        one, other = (deployment.api() for _ in range(2))
        yield stack.enter_context(one), stack.enter_context(other)


@dataclass
class Jar:
    """A browser's refresh cookie, handled explicitly because Python's jar sends no secure cookie to loopback."""

    cookie: str
    access_token: str

    @classmethod
    def log_in(cls, api: Api) -> "Jar":
        answer = httpx.post(f"{api.url}/api/v1/auth/login", json={"email": ADMIN, "password": PASSWORD}, timeout=60)
        return cls(answer.raise_for_status().cookies[COOKIE], answer.json()["access_token"])

    def refresh(self, api: Api) -> httpx.Response:
        """Send the cookie, and keep the one of the response."""
        answer = send(api, self.cookie)
        if answer.status_code == httpx.codes.OK:
            self.cookie, self.access_token = answer.cookies[COOKIE], answer.json()["access_token"]
        return answer

    def is_known(self, api: Api) -> bool:
        """Return whether a process accepts the access token."""
        bearer = {"Authorization": f"Bearer {self.access_token}"}
        return fetch(f"{api.url}/api/v1/auth/me", headers=bearer).status_code == httpx.codes.OK


def send(api: Api, cookie: str) -> httpx.Response:
    return httpx.post(f"{api.url}/api/v1/auth/refresh", headers=CALLS | {"Cookie": f"{COOKIE}={cookie}"}, timeout=60)


def outcome(answer: httpx.Response) -> str:
    """Return the status of a response, and the code of a refusal."""
    return str(answer.json().get("code", "")) or str(answer.status_code)


def pass_time(postgres: PostgresServer, seconds: float) -> None:
    """Move the use of tokens into the past by this many seconds, because the processes use the real clock."""
    earlier = f"used_at - interval '{seconds} s'"
    postgres.execute(f"update auth.refresh_tokens set used_at = {earlier}", DATABASE)  # noqa: S608 -- our own numbers


def live_branches(postgres: PostgresServer) -> int:
    """Return the number of unused tokens of the latest session."""
    unused = (
        "select count(*) from auth.refresh_tokens where used_at is null"
        " and session_id = (select id from auth.sessions order by created_at desc limit 1)"
    )
    return int(postgres.execute(unused, DATABASE))


def test_twenty_tabs_refresh_at_once(apis: tuple[Api, Api], postgres: PostgresServer) -> None:
    """Twenty tabs that refresh at once get the same new cookie, with one unused token, and can refresh again."""
    jar = Jar.log_in(apis[0])
    old = jar.cookie
    with ThreadPoolExecutor(20) as tabs:
        answers = list(tabs.map(lambda number: send(apis[number % 2], old), range(20)))
    cookies = {answer.cookies[COOKIE] for answer in answers}
    alive = live_branches(postgres)
    (jar.cookie,) = cookies
    after = [outcome(jar.refresh(apis[number % 2])) for number in range(3)]
    outcomes = dict(Counter(outcome(answer) for answer in answers))
    print(
        f"\n20 refreshes of one cookie on two processes: {outcomes}, {len(cookies)} new cookie, "
        f"{alive} live branch, the jar's next refreshes: {after}"
    )
    assert (outcomes, alive, after) == ({"200": 20}, 1, ["200"] * 3)


def test_a_lost_answer_is_given_again(apis: tuple[Api, Api], postgres: PostgresServer) -> None:
    """A client that lost a response gets the same token again after 30 s, even from another process."""
    jar = Jar.log_in(apis[0])
    lost = send(apis[0], jar.cookie).cookies[COOKIE]
    pass_time(postgres, 30)
    again = jar.refresh(apis[1])
    print(f"\na refresh whose answer was lost, 30 s later: {outcome(again)}, the same cookie: {jar.cookie == lost}")
    assert (outcome(again), jar.cookie) == ("200", lost)
    assert outcome(jar.refresh(apis[0])) == "200"


@pytest.mark.parametrize(
    ("quick", "last"),
    [
        pytest.param(False, "the thief's", id="a thief after the grace"),
        pytest.param(True, "the owner's", id="a thief within the grace"),
    ],
)
def test_a_copied_token_is_detected_after_the_grace_period(
    apis: tuple[Api, Api],
    postgres: PostgresServer,
    quick: bool,
    last: str,
) -> None:
    """An attacker who uses a copy of each cookie after the owner has used it is detected at the first step.

    Within the grace period the attacker gets the owner's next cookie. If the attacker uses it first, the owner's next
    refresh detects the theft. The session never continues for both.
    """
    owner = Jar.log_in(apis[0])
    thief = Jar(owner.cookie, "")
    steps, found = 0, ""
    while not found:
        steps += 1
        assert steps < 10, "the theft is not detected"
        assert outcome(owner.refresh(apis[0])) == "200"
        if quick:
            assert outcome(thief.refresh(apis[1])) == "200", "as good as a tab of the owner's"
            assert outcome(thief.refresh(apis[1])) == "200", "now ahead"
        pass_time(postgres, GRACE + 1)
        found = "" if outcome((owner if quick else thief).refresh(apis[1])) == "200" else last
    ends = outcome(owner.refresh(apis[0])), outcome(thief.refresh(apis[0]))
    print(f"\nfound out at step {steps}, by {found} refresh; then owner and thief get {ends}")
    assert (steps, found) == (1, last)
    assert set(ends) <= {"session_revoked", "refresh_reused"}


@pytest.mark.parametrize("rounds", [pytest.param(3, id="short"), pytest.param(50, id="long", marks=pytest.mark.prove)])
def test_a_theft_ends_the_session_on_every_process(
    apis: tuple[Api, Api], postgres: PostgresServer, rounds: int
) -> None:
    """A stolen token used after the grace period ends the session's access tokens on another process too."""
    one, other = apis
    waited = []
    for _ in range(rounds):
        owner = Jar.log_in(one)
        stolen = owner.cookie
        assert outcome(owner.refresh(one)) == "200"
        assert owner.is_known(other)
        pass_time(postgres, GRACE + 1)
        answer = send(one, stolen)
        answered = time.monotonic()
        assert outcome(answer) == "refresh_reused"
        eventually("the session has ended on the other process", lambda: not owner.is_known(other))  # noqa: B023 -- called at once
        waited.append(1000 * (time.monotonic() - answered))
        assert outcome(owner.refresh(other)) == "session_revoked"
    print(
        f"\na stolen token's `refresh_reused` to refusal of the session on another process, {rounds} times: "
        f"median {median(waited):.1f} ms, worst {max(waited):.1f} ms"
    )

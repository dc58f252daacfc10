"""An owner can log in while attackers guess the password from many addresses, on real processes."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import quantiles
from threading import Event
from uuid import uuid4

import httpx
import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Api, Deployment, eventually
from tequipy_devstack.proving.traffic import PASSWORD

from .accounts import create_accounts

COOKIE = "__Host-device"
PAUSE = 0.2
"""Seconds between two guesses for one account."""
PROXIED = {"TEQUIPY_TRUSTED_PROXIES": '["127.0.0.1/32"]'}
"""The test acts as the proxy: `X-Forwarded-For` names the client address."""


@pytest.fixture
def accounts(deployment: Deployment) -> tuple[str, str, str]:
    """Return the addresses of three new accounts; a new password invalidates device marks."""
    owner, changer, resetter = (f"{uuid4().hex}@example.com" for _ in range(3))
    create_accounts(deployment, (owner, changer, resetter))
    return owner, changer, resetter


@dataclass
class Person:
    """A person at a client address; `seen` has status and duration of each response by kind of request."""

    client: httpx.Client
    email: str
    address: str
    password: str = PASSWORD
    seen: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))

    def post(self, what: str, route: str, body: dict[str, str], **headers: str) -> httpx.Response:
        """Send JSON to a route of auth and record the response."""
        started = time.monotonic()
        headers = {"X-Forwarded-For": self.address, **headers}
        answer = self.client.post(f"/api/v1/auth/{route}", json=body, headers=headers)
        self.seen[what].append((answer.status_code, time.monotonic() - started))
        return answer

    def log_in(self, what: str, cookie: str = "", **more: str) -> httpx.Response:
        """Log in, with a device cookie if there is one."""
        headers = {"Cookie": f"{COOKIE}={cookie}"} if cookie else {}
        return self.post(what, "login", {"email": self.email, "password": self.password} | more, **headers)


def requests(api: Api) -> httpx.Client:
    """Return the HTTP client of all persons; it sends no secure cookies by itself, because this is plain HTTP."""
    return httpx.Client(base_url=api.url, timeout=60)


@contextmanager
def attackers(client: httpx.Client, accounts: Collection[str]) -> Iterator[dict[str, Counter[int]]]:
    """Guess the password of each account from changing addresses while the block lasts; yield the statuses.

    The block begins when all accounts are locked.
    """
    over, statuses = Event(), dict[str, Counter[int]]()

    def guess(email: str) -> None:
        guesser, counts = Person(client, email, "", "wrong horse battery staple"), statuses.setdefault(email, Counter())
        for number in count():
            if over.wait(PAUSE):
                return
            guesser.address = f"198.18.{number // 256 % 256}.{number % 256}"
            counts[guesser.log_in("guess").status_code] += 1

    with ThreadPoolExecutor(len(accounts)) as threads:
        running = [threads.submit(guess, email) for email in accounts]
        try:
            eventually(
                "all accounts are locked",
                lambda: len(statuses) == len(accounts) and all(counts[429] for counts in statuses.values()),
                within=150,
            )
            yield statuses
        finally:
            over.set()
            for each in running:
                each.result()


def report(title: str, *people: Person) -> dict[str, Counter[int]]:
    """Print the responses; return the statuses by kind of request."""
    seen = {what: answers for person in people for what, answers in person.seen.items() if not what.startswith("-")}
    print(f"\n{title}")
    for what, answers in seen.items():
        times = quantiles([seconds * 1000 for _, seconds in answers] * 2, n=20)
        statuses = ", ".join(f"{number} x {status}" for status, number in Counter(s for s, _ in answers).items())
        print(f"  {what}: {statuses}; p50 {times[9]:.0f} ms, p95 {times[18]:.0f} ms")
    return {what: Counter(status for status, _ in answers) for what, answers in seen.items()}


def reset(person: Person, mails: MailSink) -> None:
    """Reset a forgotten password by the mailed link, and log in after attackers have locked the account again."""
    before = len(mails.messages(person.email))

    def link() -> str | None:
        texts = [mail.get_body(("plain",)) for mail in mails.messages(person.email)[before:]]
        found = [re.search(r"reset-password#token=(\S+)", text.get_content()) for text in texts if text]
        return next((match[1] for match in found if match), None)

    person.post("forgot", "password/forgot", {"email": person.email})
    eventually("the link is mailed", link)
    person.password = f"{PASSWORD} {before}"
    person.post("reset", "password/reset", {"token": link() or "", "new_password": person.password})
    elsewhere = Person(person.client, person.email, "192.0.2.99", person.password)
    eventually("the account is locked again", lambda: elsewhere.log_in("").status_code == httpx.codes.TOO_MANY_REQUESTS)
    person.log_in("login after the reset")


@pytest.mark.prove
@pytest.mark.parametrize(
    ("seconds", "every", "resets"),
    [
        pytest.param(30, 1, 2, id="short", marks=[pytest.mark.quick, pytest.mark.timeout(200)]),
        pytest.param(600, 5, 4, id="long", marks=pytest.mark.timeout(1000)),
    ],
)
def test_an_owner_can_log_in_during_an_attack(
    deployment: Deployment, mails: MailSink, accounts: tuple[str, str, str], seconds: float, every: float, resets: int
) -> None:
    """With a device mark, a live session or a reset the owner always succeeds; without one the lockout applies."""
    with (
        deployment.api(**PROXIED) as api,
        deployment.relay(),
        deployment.worker(),
        requests(api) as client,
    ):
        owner, unmarked = Person(client, accounts[0], "192.0.2.1"), Person(client, accounts[0], "192.0.2.2")
        changer, resetter = Person(client, accounts[1], "192.0.2.3"), Person(client, accounts[2], "192.0.2.4")
        cookie = owner.log_in("- first").cookies[COOKIE]
        body = {"token_delivery": "body"}
        session = owner.log_in("- first", **body).json()
        marked = body | {"device_token": session["device_token"]}
        changing = changer.log_in("- first", **body).json()["access_token"]
        with attackers(client, accounts) as guesses:
            started, due = time.monotonic(), 0.0
            while (passed := time.monotonic() - started) < seconds:
                owner.log_in("login, marked by cookie", cookie)
                owner.log_in("login, marked in the body", **marked)
                bearer = {"Authorization": f"Bearer {session['access_token']}"}
                answer = owner.post("reauthenticate", "reauthenticate", body | {"password": owner.password}, **bearer)
                session = answer.json() if answer.status_code == httpx.codes.OK else session
                unmarked.log_in("login, unmarked")
                change = {"current_password": changer.password, "new_password": f"{PASSWORD} {passed}"}
                bearer = {"Authorization": f"Bearer {changing}"}
                if changer.post("password/change", "password/change", change, **bearer).is_success:
                    changer.password = change["new_password"]
                if passed >= due:
                    reset(resetter, mails)
                    due += seconds / resets
                time.sleep(every)
    counts = ", ".join(f"{number} x {status}" for status, number in sum(guesses.values(), Counter()).items())
    statuses = report(f"{seconds:g} s, guesses: {counts}", owner, unmarked, changer, resetter)
    assert statuses.pop("login, unmarked")[429] > 0, "the account was locked"
    good = {"forgot": 202, "reset": 204, "password/change": 204}
    assert {what: set(found) for what, found in statuses.items()} == {what: {good.get(what, 200)} for what in statuses}
    assert len(resetter.seen["reset"]) == resets


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.timeout(200)
def test_marked_clients_can_log_in_behind_a_locked_address(
    deployment: Deployment, accounts: tuple[str, str, str]
) -> None:
    """After 50 failures have locked a NAT's address, its clients with device marks can still log in."""
    nat = "203.0.113.7"
    with deployment.api(**PROXIED) as api, requests(api) as client:
        owner, unmarked = Person(client, accounts[0], nat), Person(client, accounts[0], nat)
        cookie = owner.log_in("- first").cookies[COOKIE]
        body = {"token_delivery": "body"}
        marked = body | {"device_token": owner.log_in("- first", **body).json()["device_token"]}
        for number in range(50):
            Person(client, f"user{number}@example.com", nat, "wrong").log_in("guess")
        for _ in range(20):
            unmarked.log_in("login, unmarked")
            owner.log_in("login, marked by cookie", cookie)
            owner.log_in("login, marked in the body", **marked)
    statuses = report("one client address, 50 failures", owner, unmarked)
    assert statuses == {
        "login, marked by cookie": {200: 20},
        "login, marked in the body": {200: 20},
        "login, unmarked": {429: 20},
    }

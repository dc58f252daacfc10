"""Logins of others while one network requests more password hashes than the processors can compute."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from statistics import median, quantiles
from uuid import uuid4

import httpx
import pytest

from tequipy_auth.api import RATE_POLICIES
from tequipy_devstack.proving import Deployment, Load, Route, Sample
from tequipy_devstack.proving.traffic import PASSWORD

from .accounts import create_accounts

SETTINGS = {
    "TEQUIPY_AUTH__BCRYPT_COST": "12",
    "TEQUIPY_TRUSTED_PROXIES": '["127.0.0.0/8"]',  # X-Forwarded-For names the client address
} | {f"TEQUIPY_RATE_LIMITS__{policy.upper()}": "off" for policy in RATE_POLICIES}
OTHERS = [f"user{number}@example.com" for number in range(10)]
ATTACKER = "attacker@example.com"


@pytest.fixture(scope="module")
def accounts(deployment: Deployment) -> None:
    """Create verified accounts with hashes at the cost of production."""
    create_accounts(deployment, (ATTACKER, *OTHERS), **SETTINGS)


def logins_of_others() -> list[Route]:
    """Return one login route for each of the others, each from its own address."""
    return [
        Route(
            "POST",
            "/api/v1/auth/login",
            200,
            body=partial(dict, email=email, password=PASSWORD, token_delivery="body"),
            headers={"X-Forwarded-For": f"198.51.100.{number}"},
        )
        for number, email in enumerate(OTHERS, start=1)
    ]


def logins_of_the_attacker(addresses: Sequence[str]) -> list[Route]:
    """Return logins with the right password of one account from each address, whose number no lockout limits."""
    return [
        Route(
            "POST",
            "/api/v1/auth/login",
            200,
            body=lambda: {"email": ATTACKER, "password": PASSWORD, "token_delivery": "body"},
            headers={"X-Forwarded-For": address},
        )
        for address in addresses
    ]


def registrations(addresses: Sequence[str]) -> list[Route]:
    """Return registrations of new addresses, whose number of hashes no lockout limits."""
    return [
        Route(
            "POST",
            "/api/v1/auth/register",
            202,
            body=lambda: {"email": f"{uuid4().hex}@example.com", "password": PASSWORD},
            headers={"X-Forwarded-For": address},
        )
        for address in addresses
    ]


ONE_ADDRESS = ["192.0.2.1"]
ONE_IPV6_56 = [f"2001:db8:0:{subnet:x}::1" for subnet in range(256)]


def described(samples: Sequence[Sample]) -> str:
    """Describe the samples: successes, p50, p95 and other outcomes."""
    good = [sample.seconds for sample in samples if sample.good]
    points = quantiles(good, n=100) if len(good) > 1 else [float("nan")] * 99
    rest = Counter(sample.outcome for sample in samples if not sample.good)
    return f"{len(good)} of {len(samples)} answered well, p50 {points[49]:.2f} s, p95 {points[94]:.2f} s, {dict(rest)}"


def seconds_of_a_login(url: str) -> float:
    """Return the median duration of a login without other load."""
    body = {"email": OTHERS[0], "password": PASSWORD, "token_delivery": "body"}
    with httpx.Client(base_url=url, timeout=60) as client:
        answers = [client.post("/api/v1/auth/login", json=body).raise_for_status() for _ in range(5)]
    return median(answer.elapsed.total_seconds() for answer in answers)


QUICK = [pytest.mark.prove, pytest.mark.quick, pytest.mark.timeout(300)]
LONG = [pytest.mark.prove, pytest.mark.timeout(900)]


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("attack", "addresses", "rate", "queue", "seconds"),
    [
        pytest.param("register", ONE_ADDRESS, 20, 8, 6, id="registrations-short", marks=QUICK),
        pytest.param("register", ONE_ADDRESS, 20, 64, 90, id="registrations", marks=LONG),
        pytest.param("register", ONE_IPV6_56, 20, 64, 90, id="registrations-ipv6-56", marks=LONG),
        pytest.param("login", ONE_ADDRESS, 7, 64, 90, id="one-account", marks=LONG),
        pytest.param("login", ONE_IPV6_56, 7, 64, 90, id="one-account-ipv6-56", marks=LONG),
    ],
)
def test_one_network_cannot_prevent_logins_of_others(
    deployment: Deployment, attack: str, addresses: Sequence[str], rate: float, queue: int, seconds: int
) -> None:
    """Every login of others succeeds while one network floods; a full queue refuses that network's own requests."""
    with deployment.api(TEQUIPY_AUTH__HASHING_QUEUE=str(queue), **SETTINGS) as api:
        routes = registrations(addresses) if attack == "register" else logins_of_the_attacker(addresses)
        alone = seconds_of_a_login(api.url)
        # At most one a second: half of what two processors can compute beside the flood, on any machine.
        logins = min(1.0, 0.5 / alone)
        with Load(api.url, routes, rate=rate) as flood:
            flood.send(queue + 40)  # fills the queue, unless lockouts limit the flood
            with Load(api.url, logins_of_others(), rate=logins) as others:
                others.send(max(3, int(seconds * logins)))
    print(
        f"\n{attack} from {len(addresses)} addresses, {rate} a second; a login alone: {alone:.2f} s; meanwhile, "
        f"{logins:.2f} a second: {described(others.samples)};\n  the flood: {described(flood.samples)}"
    )
    assert Counter(sample.outcome for sample in others.samples) == {"200": len(others.samples)}

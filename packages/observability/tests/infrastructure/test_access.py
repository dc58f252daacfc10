"""The token of the metrics: few guesses for each client, and a log line about them."""

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from tequipy_observability.infrastructure.access import PERIOD, TRIES, MetricsAccess

RIGHT, WRONG = "Bearer s3cret", "Bearer guess"


class Clock:
    """Time as the test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> MetricsAccess:
    return MetricsAccess(SecretStr("s3cret"), clock=clock)


def test_without_a_token_everybody_may_read() -> None:
    """Nothing is asked for, so nothing is a guess."""
    access = MetricsAccess(None)
    assert {access.check(WRONG, "192.0.2.1") for _ in range(100)} == {200}


def test_a_client_may_guess_ten_times_a_minute(access: MetricsAccess, clock: Clock) -> None:
    """Then it is 429 for the rest of the minute, the right token included; others are not concerned."""
    assert [access.check(WRONG, "192.0.2.1") for _ in range(TRIES)] == [401] * TRIES
    assert [access.check(sent, "192.0.2.1") for sent in (WRONG, RIGHT)] == [429, 429]
    assert access.check(RIGHT, "192.0.2.2") == 200
    clock.now = PERIOD
    assert [access.check(sent, "192.0.2.1") for sent in (RIGHT, WRONG)] == [200, 401]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        (None, None, True),
        ("a socket", "192.0.2.1", False),
    ],
)
def test_a_client_is_an_address_or_a_64(access: MetricsAccess, one: str | None, other: str | None, same: bool) -> None:
    """IPv6 counts by /64, an IPv4 address is the same whichever way it comes."""
    for _ in range(TRIES):
        access.check(WRONG, one)
    assert access.check(RIGHT, other) == (429 if same else 200)


def test_asking_without_a_token_is_no_guess(access: MetricsAccess) -> None:
    """A scraper that was set up wrong is refused as often as it asks."""
    assert {access.check("", "192.0.2.1") for _ in range(100)} == {401}
    assert access.check(RIGHT, "192.0.2.1") == 200


def test_refusals_are_logged_once_a_minute(access: MetricsAccess, clock: Clock) -> None:
    """The first of a client, and the limit; never what was sent."""
    with capture_logs() as events:
        for _ in range(100):
            access.check(WRONG, "192.0.2.1")
        access.check("", "192.0.2.2")
        clock.now = PERIOD
        access.check(WRONG, "192.0.2.1")
    assert [(event["event"], event["ip"], event["log_level"]) for event in events] == [
        ("metrics_request_refused", "192.0.2.1", "warning"),
        ("metrics_token_guesses_limited", "192.0.2.1", "warning"),
        ("metrics_request_refused", "192.0.2.2", "warning"),
        ("metrics_request_refused", "192.0.2.1", "warning"),
    ]
    assert "guess" not in str([{name: value for name, value in event.items() if name != "event"} for event in events])


def test_clients_without_number_are_forgotten(access: MetricsAccess) -> None:
    """The memory of refusals is bounded, whoever asks."""
    for number in range(5000):
        access.check(WRONG, f"10.0.{number // 256}.{number % 256}")
    assert len(access._records) <= 1024

"""The token of the metrics: a limit of wrong tokens per client, and log lines about refusals."""

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from tequipy_observability.metrics.access import PERIOD, TRIES, MetricsAccess

RIGHT, WRONG = "Bearer s3cret", "Bearer guess"


class Clock:
    """A clock that tests set."""

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
    """Without a configured token nothing is refused."""
    access = MetricsAccess(None)
    assert {access.check(WRONG, "192.0.2.1") for _ in range(100)} == {200}


def test_a_client_may_guess_ten_times_a_minute(access: MetricsAccess, clock: Clock) -> None:
    """After ten wrong tokens a client gets 429 for the rest of the minute, even with the right token; others do not."""
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
    """IPv6 clients are counted by /64, and IPv4 clients alike whether mapped to IPv6 or not."""
    for _ in range(TRIES):
        access.check(WRONG, one)
    assert access.check(RIGHT, other) == (429 if same else 200)


def test_requests_without_a_token_do_not_count(access: MetricsAccess) -> None:
    """Requests without a token are refused, but never lead to 429."""
    assert {access.check("", "192.0.2.1") for _ in range(100)} == {401}
    assert access.check(RIGHT, "192.0.2.1") == 200


def test_refusals_are_logged_once_a_minute(access: MetricsAccess, clock: Clock) -> None:
    """A client's first refusal and the start of its 429s are logged once a minute, without the token."""
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


def test_the_number_of_remembered_clients_is_bounded(access: MetricsAccess) -> None:
    """The number of remembered clients is bounded."""
    for number in range(5000):
        access.check(WRONG, f"10.0.{number // 256}.{number % 256}")
    assert len(access._records) <= 1024

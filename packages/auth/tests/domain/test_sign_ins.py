"""Address ranges, by which a login is recognised as one from a new place."""

from dataclasses import replace

import pytest

from tequipy_auth import Client, Session
from tequipy_auth.domain.sign_ins import address_range, is_new_range
from tequipy_platform.testing import EPOCH, CountingIds

new_id = CountingIds()


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("192.0.2.1", "192.0.2.0/24"),
        ("192.0.2.255", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::3", "2001:db8:1::/48"),
        ("2001:db8:2::3", "2001:db8:2::/48"),
        ("testclient", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_range_of_an_address(ip: str | None, expected: str) -> None:
    """IPv4 addresses are compared by their /24, IPv6 addresses by their /48."""
    assert address_range(Client(ip)) == expected


def test_a_range_is_known_by_login_and_refresh() -> None:
    """The ranges of the login and of the latest refresh are known; without sessions every range is."""
    session = Session(new_id(), new_id(), Client("192.0.2.1"), ("pwd",), EPOCH, EPOCH, EPOCH, EPOCH, EPOCH)
    refreshed = replace(session, last_client=Client("198.51.100.1"))
    assert not is_new_range(Client("203.0.113.9"), [])
    assert not is_new_range(Client("192.0.2.9"), [session])
    assert is_new_range(Client("198.51.100.9"), [session])
    assert not is_new_range(Client("198.51.100.9"), [session, refreshed])

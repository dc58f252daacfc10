"""Rate limit policies."""

import dataclasses
from typing import Any

import pytest

from tequipy_caching import RatePolicy


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"name": ""}, "name must be"),
        ({"name": "a:b"}, "name must be"),
        ({"name": "a\n"}, "name must be"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"burst": 0}, "burst must be at least 1"),
        ({"period": 0}, "period must be at least"),
        ({"period": float("inf")}, "period must be at least"),
        ({"period": float("nan")}, "period must be at least"),
        ({"period": 86_400, "limit": 999_983}, "rounder"),
        ({"lease": -1}, "lease must be"),
        ({"lease": 11}, "lease must be"),
        ({"on_store_error": "panic"}, "on_store_error must be"),
    ],
)
def test_an_invalid_policy_is_refused(fault: dict[str, Any], message: str) -> None:
    """Each invalid field is named, all at once."""
    good: dict[str, Any] = {"name": "login", "limit": 10, "period": 60}
    with pytest.raises(ValueError, match=message):
        RatePolicy(**good | fault)
    with pytest.raises(ValueError, match=rf"{message}.*; on_store_error|name must.*; .*{message}"):
        RatePolicy(**good | {"name": "x y", "on_store_error": "?"} | fault)


def test_the_burst_is_the_limit_unless_given() -> None:
    """The default of `burst` is `limit`."""
    policy = RatePolicy("login", 10, 60)
    assert policy.capacity == 10
    assert dataclasses.replace(policy, burst=3).capacity == 3


def test_large_round_rates_are_counted() -> None:
    """Common factors of limit and period do not reduce the supported range."""
    policy = RatePolicy("daily", 1_000_000, 86_400)
    assert (policy.increment, policy.leak_rate) == (86_400, 1)
    assert RatePolicy("odd", 7, 60).increment == 60_000_000

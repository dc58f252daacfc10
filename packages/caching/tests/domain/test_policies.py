"""A policy is sensible or refused."""

from typing import Any

import pytest

from tequipy_caching import CachePolicy
from tequipy_caching.domain.policies import MOST, check_ttl


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ttl", 0),
        ("ttl", float("nan")),
        ("ttl", float("inf")),
        ("ttl", 1e300),
        ("fail_safe", 1e300),
        ("l1_maxsize", 0),
        ("l1_ttl", -1),
        ("jitter", 1),
        ("hard_timeout", 0),
        ("max_value_bytes", 0),
        ("tiers", "l3"),
    ],
)
def test_a_senseless_value_is_named(field: str, value: Any) -> None:
    """Each field refuses what it cannot mean, by its name."""
    with pytest.raises(ValueError, match=f"^{field} "):
        CachePolicy(**{"ttl": 60, field: value})


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e300])
def test_a_life_that_is_none_is_refused(ttl: float) -> None:
    """As is one that Redis could not count."""
    check_ttl(None)
    check_ttl(MOST)
    with pytest.raises(ValueError, match=f"^ttl must be greater than 0 and at most {MOST}, in seconds$"):
        check_ttl(ttl)


def test_all_faults_are_named_at_once() -> None:
    """Who writes a policy learns of every fault in one go."""
    with pytest.raises(ValueError, match=r"ttl must.*; jitter must"):
        CachePolicy(ttl=-1, jitter=2)

"""A policy is sensible or refused."""

from typing import Any

import pytest

from tequipy_caching import CachePolicy


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ttl", 0),
        ("ttl", float("nan")),
        ("ttl", float("inf")),
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


def test_all_faults_are_named_at_once() -> None:
    """Who writes a policy learns of every fault in one go."""
    with pytest.raises(ValueError, match=r"ttl must.*; jitter must"):
        CachePolicy(ttl=-1, jitter=2)

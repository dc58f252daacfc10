"""Invalid cache policies are refused."""

from typing import Any

import pytest

from tequipy_caching import CachePolicy
from tequipy_caching.cache.policies import MAX_VALUE, check_ttl


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
def test_an_invalid_value_is_refused(field: str, value: Any) -> None:
    """An invalid value is refused with the name of its field."""
    with pytest.raises(ValueError, match=f"^{field} "):
        CachePolicy(**{"ttl": 60, field: value})


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e300])
def test_an_invalid_ttl_is_refused(ttl: float) -> None:
    """A ttl that is zero, negative or too large for Redis is refused."""
    check_ttl(None)
    check_ttl(MAX_VALUE)
    with pytest.raises(ValueError, match=f"^ttl must be greater than 0 and at most {MAX_VALUE}, in seconds$"):
        check_ttl(ttl)


def test_all_faults_are_named_at_once() -> None:
    """The error names all invalid fields."""
    with pytest.raises(ValueError, match=r"ttl must.*; jitter must"):
        CachePolicy(ttl=-1, jitter=2)

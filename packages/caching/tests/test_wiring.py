"""The settings of the caches."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr, ValidationError

from tequipy_caching import CachePolicy, UnknownCache
from tequipy_caching.wiring import CacheSettings, build_cache

URL = SecretStr("redis://:hunter2@localhost:6379/0")


class Cache(CacheSettings):
    declared: ClassVar[Mapping[str, CachePolicy]] = {
        "users": CachePolicy(ttl=300),
        "slow": CachePolicy(ttl=60, hard_timeout=30),
    }


class Section(BaseModel):
    cache: Cache


def test_policies_are_read_from_json() -> None:
    """Policies from JSON, as in an environment variable, replace built-in and declared ones, and add others."""
    given = {"users": {"ttl": 5}, "config": {"ttl": 6}, "x": {"ttl": 7}}
    text = json.dumps({"cache": {"url": "redis://localhost", "policies": given}})
    assert Section.model_validate_json(text).cache.all_policies == {
        "rate_limits": CachePolicy(ttl=60, l1_maxsize=10_000),
        "slow": CachePolicy(ttl=60, hard_timeout=30),
        "users": CachePolicy(ttl=5),
        "config": CachePolicy(ttl=6),
        "x": CachePolicy(ttl=7),
    }


async def test_a_manager_has_the_declared_policies() -> None:
    """A manager has the caches that the app's settings declare, and a tombstone outlasts their slowest load."""
    build_cache(Cache(url=URL)).cache("users", str)
    with pytest.raises(UnknownCache):
        build_cache(CacheSettings(url=URL)).cache("users", str)
    with pytest.raises(ValidationError, match=r"greater than 30\.25"):
        Cache(url=URL, tombstone_ttl=20)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"url": "http://localhost"}, "redis or rediss"),
        ({"prefix": "a:b"}, "prefix"),
        ({"prefix": "a\n"}, "prefix"),
        ({"policies": {"a:b": {"ttl": 1}}}, "policies"),
        ({"policies": {"x": {"ttl": 0}}}, "ttl must be greater than 0"),
        ({"policies": {"x": {"ttl": 1, "tll": 2}}}, "tll"),
        ({"l2_timeout": 0}, "l2_timeout"),
        ({"l2_timeout": float("inf")}, "l2_timeout"),
        ({"on_error": "panic"}, "on_error"),
        ({"tombstone_ttl": 10.25}, "greater than 10.25, the longest hard_timeout"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_setting_is_named(fault: dict[str, Any], message: str) -> None:
    """Each invalid setting is reported with its name."""
    with pytest.raises(ValidationError, match=message):
        CacheSettings.model_validate({"url": "redis://localhost", **fault})


def test_the_password_is_shown_nowhere() -> None:
    """Neither the settings nor their validation errors show the password of Redis."""
    assert "hunter2" not in repr(CacheSettings(url=URL))
    with pytest.raises(ValidationError) as caught:
        CacheSettings.model_validate({"url": "http://:hunter2@localhost"})
    assert "hunter2" not in str(caught.value)


def test_building_needs_neither_event_loop_nor_redis() -> None:
    """Managers are built without an event loop and without Redis, two in one process, each with its own registry."""
    for _ in range(2):
        build_cache(CacheSettings(url=URL), registry=CollectorRegistry())
        build_cache(CacheSettings(url=URL))

"""The settings of the caches."""

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr, ValidationError

from tequipy_caching import CachePolicy
from tequipy_caching.wiring import CacheSettings, build_cache

URL = SecretStr("redis://:hunter2@localhost:6379/0")


class Section(BaseModel):
    cache: CacheSettings


def test_policies_are_read_from_json() -> None:
    """Policies from JSON, as in an environment variable, are merged over the built-in ones."""
    text = json.dumps(
        {"cache": {"url": "redis://localhost", "policies": {"user_profile": {"ttl": 5}, "x": {"ttl": 6}}}}
    )
    settings = Section.model_validate_json(text).cache
    assert settings.all_policies["user_profile"] == CachePolicy(ttl=5)
    assert settings.all_policies["x"] == CachePolicy(ttl=6)
    assert settings.all_policies["access_tokens"] == CachePolicy(ttl=930, l1_maxsize=10_000, tiers="l1")


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

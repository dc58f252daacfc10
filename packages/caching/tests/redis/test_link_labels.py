"""Log events about Redis name the link that they are about, because a process has several."""

from typing import Any, cast

import pytest
from pydantic import SecretStr

from tequipy_caching import RatePolicy
from tequipy_caching.wiring import CacheSettings, LimiterSettings, build_cache, build_rate_limiter

pytestmark = pytest.mark.usefixtures("quick_probes")


async def test_an_outage_says_which_link_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """The events of cache and limiter have the link's name and its server, without user and password."""
    settings = CacheSettings(url=SecretStr("redis://ada:hunter2@127.0.0.1:1/3"))
    limiter = LimiterSettings(url=SecretStr("redis://:hunter2@127.0.0.1:1/4"))
    async with build_cache(settings) as cache, build_rate_limiter(settings, limiter) as limits:
        await cache.cache("config", str).get("ada")
        await limits.hit(RatePolicy("default", 10, 60), "ada")
    opened = [cast("Any", each) for each in caplog.records if each.message == "cache_breaker_opened"]
    assert {(each.link, each.server) for each in opened} == {("cache", "127.0.0.1:1/3"), ("limiter", "127.0.0.1:1/4")}
    assert "hunter2" not in caplog.text

"""Roles on PostgreSQL and Redis."""

import asyncio

from pydantic import SecretStr
from sqlalchemy import insert

from tequipy_auth import CACHE_POLICIES, Role
from tequipy_auth.infrastructure.models import RoleRow
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_platform.database import Database


async def test_a_role_changed_on_one_process_is_seen_by_the_other(
    database: Database, redis_url: str, redis_prefix: str
) -> None:
    """The other process uses its cache until the invalidation arrives, and then reads the database."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix, policies=CACHE_POLICIES)
    caches = build_cache(settings), build_cache(settings)
    here, there = (
        build_auth(
            AuthSettings(), environment="test", public_url="https://app.example.com", database=database, cache=cache
        )
        for cache in caches
    )
    async with caches[0], caches[1], asyncio.timeout(30):
        while any(cache.health().backplane != "live" for cache in caches):
            await asyncio.sleep(0.005)
        before = await there.roles.permissions_of(["support"])
        assert "users:read" in before
        async with database.sessions() as session:  # without the service, so that nothing is published
            await session.execute(insert(RoleRow).values(name="support", permissions=()))
            await session.commit()
        assert await there.roles.permissions_of(["support"]) == before, "the database was asked again"
        await here.roles.define(Role("support", ("audit:read",)))
        while await there.roles.permissions_of(["support"]) != ("audit:read",):
            await asyncio.sleep(0.005)

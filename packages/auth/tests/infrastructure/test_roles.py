"""Roles on PostgreSQL and Redis."""

import asyncio
import time

from pydantic import SecretStr
from sqlalchemy import insert

from tequipy_auth import CACHE_POLICIES, Auth, Client, InvalidAccessToken, Role
from tequipy_auth.infrastructure.models import RoleRow
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_platform.database import Database

PASSWORD = "correct horse battery staple"


async def test_a_role_that_is_taken_away_ends_the_token_on_the_other_process(
    database: Database, redis_url: str, redis_prefix: str
) -> None:
    """A token with the role is refused by the other process as soon as the message arrives; the times are printed."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix, policies=CACHE_POLICIES)
    caches = build_cache(settings), build_cache(settings)
    here, there = (
        build_auth(
            AuthSettings(bcrypt_cost=4),
            environment="test",
            public_url="https://app.example.com",
            database=database,
            cache=cache,
        )
        for cache in caches
    )
    milliseconds = []
    async with caches[0], caches[1], here, there, asyncio.timeout(60):
        while any(cache.health().backplane != "live" for cache in caches):
            await asyncio.sleep(0.005)
        for email in ("admin@example.com", "other@example.com"):
            await here.registration.create_admin(email=email, password=PASSWORD)
        admin, _ = [
            await here.access_tokens.verify(
                (await here.login.with_password(email=email, password=PASSWORD, client=Client())).access.value
            )
            for email in ("admin@example.com", "other@example.com")
        ]
        for roles in (["support"], ["admin"]) * 5:
            pair = await here.login.with_password(email="other@example.com", password=PASSWORD, client=Client())
            principal = await there.access_tokens.verify(pair.access.value)
            await here.administration.set_roles(admin, principal.user_id, roles, client=Client())
            began = time.perf_counter()
            while not await refused(there, pair.access.value):
                await asyncio.sleep(0)
            milliseconds.append((time.perf_counter() - began) * 1000)
    print(f"\nrefused on the other process after {[f'{each:.1f}' for each in sorted(milliseconds)]} ms")


async def refused(auth: Auth, token: str) -> bool:
    try:
        await auth.access_tokens.verify(token)
    except InvalidAccessToken:
        return True
    return False


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

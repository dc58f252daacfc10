"""Revoked ids: loading from the database, and distribution to other processes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import jwt
import pytest
from pydantic import SecretStr

from tequipy_auth import CACHE_POLICIES, Auth, Client, InvalidAccessToken, KeyState, SigningKey
from tequipy_auth.infrastructure.revocations import SharedRevocations, StoredRevocations
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.call_counts import calls_of
from tequipy_platform import SystemClock
from tequipy_platform.database import Database
from tequipy_platform.testing import EPOCH, FrozenClock

TTL = timedelta(seconds=930)
PASSWORD = "correct horse battery staple"


async def test_relevant_revocations_are_loaded(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """Sessions, versions and keys that were revoked within a token's lifetime are loaded with remaining seconds."""
    auth = build_fake_auth(work, clock=clock)
    await auth.registration.create_admin(email="ada@example.com", password=PASSWORD)
    first, second, _ = [
        await auth.login.with_password(email="ada@example.com", password=PASSWORD, client=Client()) for _ in range(3)
    ]
    old, recent = [(await auth.access_tokens.verify(pair.access.value)) for pair in (first, second)]
    await work.sessions.revoke(old.session_id, at=clock.now(), reason="test")
    clock.advance(TTL)
    await work.sessions.revoke(recent.session_id, at=clock.now(), reason="test")
    await work.users.supersede(recent.user_id, at=clock.now())
    await work.users.supersede(recent.user_id, at=clock.now())
    for state in KeyState:
        await work.signing_keys.add(SigningKey(state.value, "ES256", state, {}, b"", 1, EPOCH, clock.now()))
    clock.advance(timedelta(seconds=30))
    assert await StoredRevocations(lambda: work, ttl=TTL, clock=clock).load() == {
        f"sid:{recent.session_id}": 900,
        f"ver:{recent.user_id}:1": 900,
        f"ver:{recent.user_id}:2": 900,
        "kid:revoked": 900,
    }


async def test_a_revoked_id_is_kept_for_a_tokens_lifetime() -> None:
    """A revoked id is kept for 930 s, the maximum lifetime of an access token with leeway."""
    manager = MemoryCacheManager()
    revocations = SharedRevocations(manager.expiring_set("revocations"), ttl=TTL)
    await revocations.add()
    await revocations.add("sid:1", "sid:2")
    assert await revocations.contains_any(["ver:1:1", "sid:2"])
    assert not await revocations.contains_any(["ver:1:1", "sid:3"])
    manager.clock.advance(929)
    assert await revocations.contains_any(["sid:1"])
    manager.clock.advance(1)
    assert not await revocations.contains_any(["sid:1"])


async def test_a_starting_process_reads_the_source() -> None:
    """While the set may be incomplete, its source answers."""

    async def source() -> dict[str, float]:
        return {"sid:1": 900}

    revocations = SharedRevocations(MemoryCacheManager().expiring_set("revocations", source=source), ttl=TTL)
    assert await revocations.contains_any(["sid:0", "sid:1"])


@pytest.fixture
async def processes(
    database: Database, redis_url: str, redis_prefix: str
) -> AsyncIterator[Callable[[], Awaitable[Auth]]]:
    """Return a function that starts another process: auth with its own pool, cache and channel."""
    async with AsyncExitStack() as stack:

        async def start() -> Auth:
            cache = build_cache(CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix, policies=CACHE_POLICIES))
            auth = build_auth(
                AuthSettings(bcrypt_cost=4),
                environment="test",
                public_url="https://app.example.com",
                database=database,
                cache=cache,
            )
            await stack.enter_async_context(cache)
            return await stack.enter_async_context(auth)

        yield start


async def eventually_refused(auth: Auth, token: str) -> None:
    """Wait some seconds until the process refuses the token; fail otherwise."""
    deadline = time.monotonic() + 10
    while True:
        try:
            await auth.access_tokens.verify(token)
        except InvalidAccessToken:
            return
        assert time.monotonic() < deadline, "the token is still believed"
        await asyncio.sleep(0.001)


async def test_a_revoked_session_is_refused_by_other_processes(processes: Callable[[], Awaitable[Auth]]) -> None:
    """A session that ends in one process is refused by another that has accepted its token before."""
    here, there = await processes(), await processes()
    await here.registration.create_admin(email="ada@example.com", password=PASSWORD)
    pair = await here.login.with_password(email="ada@example.com", password=PASSWORD, client=Client())
    await there.access_tokens.verify(pair.access.value)
    await here.sessions.logout(access_token=pair.access.value, client=Client())
    await eventually_refused(there, pair.access.value)


async def test_a_repeated_token_makes_few_calls(processes: Callable[[], Awaitable[Auth]]) -> None:
    """A token that was verified before costs at most 25 calls, the checks of its session, version and key included."""
    auth = await processes()
    await auth.registration.create_admin(email="ada@example.com", password=PASSWORD)
    pair = await auth.login.with_password(email="ada@example.com", password=PASSWORD, client=Client())
    async with asyncio.timeout(30):
        while not auth.access_tokens._revocations._members.live:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
    await auth.access_tokens.verify(pair.access.value)
    cost = await calls_of(auth.access_tokens.verify, pair.access.value)
    print(f"{cost} calls")
    assert cost <= 25


async def test_a_starting_process_loads_earlier_revocations(processes: Callable[[], Awaitable[Auth]]) -> None:
    """Revocations that were never published are loaded from the database."""
    here = await processes()
    await here.registration.create_admin(email="ada@example.com", password=PASSWORD)
    pair = await here.login.with_password(email="ada@example.com", password=PASSWORD, client=Client())
    principal = await here.access_tokens.verify(pair.access.value)
    async with here.sessions._unit_of_work() as work:  # like a process that dies before it publishes
        await work.sessions.revoke(principal.session_id, at=SystemClock().now(), reason="test")
    await here.access_tokens.verify(pair.access.value)
    there = await processes()
    await eventually_refused(there, pair.access.value)


async def test_a_revoked_key_is_refused_on_every_process(processes: Callable[[], Awaitable[Auth]]) -> None:
    """Every process refuses its tokens, no longer publishes it, and signs with another key."""
    here, there = await processes(), await processes()
    await here.registration.create_admin(email="ada@example.com", password=PASSWORD)
    pair = await here.login.with_password(email="ada@example.com", password=PASSWORD, client=Client())
    await there.access_tokens.verify(pair.access.value)
    kid = jwt.get_unverified_header(pair.access.value)["kid"]
    assert here.keys is not None
    await here.keys.revoke(kid)
    await eventually_refused(there, pair.access.value)
    assert kid not in str(await there.access_tokens.jwks())
    pair = await there.sessions.refresh(str(pair.refresh), client=Client())
    assert jwt.get_unverified_header(pair.access.value)["kid"] != kid
    await here.access_tokens.verify(pair.access.value)

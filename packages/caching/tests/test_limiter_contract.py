"""What every rate limiter promises, on the fake and on Redis alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tequipy_caching import RateLimiter, RatePolicy
from tequipy_caching.testing import MemoryRateLimiter
from tequipy_caching.wiring import CacheSettings, build_rate_limiter

SLOW = RatePolicy("slow", 3, 3600)
"""No test lasts until a request of it comes free."""
QUICK = RatePolicy("quick", 20, 1, burst=2)

Pass = Callable[[float], Awaitable[None]]


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, redis_prefix: str) -> AsyncIterator[RateLimiter]:
    if request.param == "memory":
        yield MemoryRateLimiter()
    else:
        url = request.getfixturevalue("redis_url")
        async with build_rate_limiter(CacheSettings(url=url, prefix=redis_prefix, l2_timeout=10)) as made:
            yield made


@pytest.fixture
def let_pass(limiter: RateLimiter) -> Pass:
    """Return what lets time pass."""

    async def let_pass(seconds: float) -> None:
        if isinstance(limiter, MemoryRateLimiter):
            limiter.clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    return let_pass


async def test_a_burst_passes_and_no_more(limiter: RateLimiter) -> None:
    """As many as the burst pass, each leaves one less, and the next is told when to come back."""
    decisions = [await limiter.hit(SLOW, "ada") for _ in range(5)]
    assert [decision.allowed for decision in decisions] == [True, True, True, False, False]
    assert [decision.remaining for decision in decisions] == [2, 1, 0, 0, 0]
    assert [decision.retry_after for decision in decisions[:3]] == [0, 0, 0]
    assert 1100 < decisions[3].retry_after <= 1200
    assert 3500 < decisions[3].reset_after <= 3600
    assert {(decision.limit, decision.degraded) for decision in decisions} == {(3, False)}


async def test_time_brings_them_back(limiter: RateLimiter, let_pass: Pass) -> None:
    """Whoever waits as long as he is told passes."""
    while (refused := await limiter.hit(QUICK, "ada")).allowed:
        pass
    assert 0 < refused.retry_after <= 0.05
    await let_pass(refused.retry_after)
    assert (await limiter.hit(QUICK, "ada")).allowed


async def test_keys_and_policies_do_not_meet(limiter: RateLimiter) -> None:
    """Each key of each policy has a budget of its own."""
    for _ in range(4):
        await limiter.hit(SLOW, "ada")
    for policy, key in ((SLOW, "bob"), (SLOW, ("ada", 1)), (RatePolicy("other", 3, 3600), "ada")):
        assert (await limiter.hit(policy, key)).remaining == 2


async def test_a_cost_counts_as_many(limiter: RateLimiter) -> None:
    """A hit of a cost takes it all or nothing; one that could never pass is refused by name."""
    assert (await limiter.hit(SLOW, "ada", cost=2)).remaining == 1
    assert not (await limiter.hit(SLOW, "ada", cost=2)).allowed
    assert (await limiter.hit(SLOW, "ada", cost=1)).allowed
    for cost in (0, -1, 4):
        with pytest.raises(ValueError, match="cost must be 1 to 3"):
            await limiter.hit(SLOW, "ada", cost=cost)
    with pytest.raises(TypeError, match="float"):
        await limiter.hit(SLOW, 1.5)  # type: ignore[arg-type]  # -- what the test is about


async def test_peek_counts_nothing(limiter: RateLimiter) -> None:
    """Peek tells what a hit would be told, however often."""
    for _ in range(5):
        peeked = await limiter.peek(SLOW, "ada")
        assert (peeked.allowed, peeked.remaining, peeked.retry_after, peeked.reset_after) == (True, 3, 0, 0)
    for _ in range(3):
        await limiter.hit(SLOW, "ada")
    peeked = await limiter.peek(SLOW, "ada")
    assert (peeked.allowed, peeked.remaining) == (False, 0)
    assert 1100 < peeked.retry_after <= 1200


async def test_a_reset_forgets(limiter: RateLimiter) -> None:
    """After a reset the whole burst is there again."""
    for _ in range(4):
        await limiter.hit(SLOW, "ada")
    await limiter.reset(SLOW, "ada")
    assert (await limiter.hit(SLOW, "ada")).remaining == 2


async def test_a_lease_changes_no_sum(limiter: RateLimiter) -> None:
    """With leases as many pass as without."""
    policy = RatePolicy("leased", 100, 3600, lease=30)
    for number in (99, 98):
        assert (await limiter.hit(policy, "bob")).remaining == number
        assert (await limiter.peek(policy, "bob")).remaining == number
    decisions = [await limiter.hit(policy, "ada") for _ in range(130)]
    assert [decision.allowed for decision in decisions] == [True] * 100 + [False] * 30
    assert [decision.remaining for decision in decisions[:100]] == list(range(99, -1, -1))


async def test_of_many_at_once_the_burst_passes(limiter: RateLimiter) -> None:
    """Hits that come together are counted like those that come one by one."""
    for policy in (SLOW, RatePolicy("leased", 3, 3600, lease=2)):
        decisions = await asyncio.gather(*(limiter.hit(policy, "ada") for _ in range(50)))
        assert sum(decision.allowed for decision in decisions) == 3

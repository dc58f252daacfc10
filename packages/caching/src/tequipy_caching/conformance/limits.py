"""Conformance cases of the limiter: as many requests pass as the policy allows, and no more."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tequipy_caching.rate_limit.policies import RateLimiter, RatePolicy

SLOW: Final = RatePolicy("slow", 3, 3600)
"""Its requests become available again so slowly that no case sees it."""
QUICK: Final = RatePolicy("quick", 20, 1, burst=2)
LEASED: Final = RatePolicy("leased", 100, 3600, lease=30)


@dataclass(frozen=True, slots=True)
class LimiterTarget:
    """Describes the limiter under test."""

    limiter: RateLimiter
    """Entered, and without counted requests."""
    advance: Callable[[float], Awaitable[Any]] = asyncio.sleep
    """Lets this many seconds pass on the clock of the limiter."""


@pytest.mark.asyncio
class TestLimits:
    """Cases about the number of requests that pass."""

    async def test_a_burst_passes_and_no_more(self, limiter_target: LimiterTarget) -> None:
        """Each request of the burst lowers `remaining` by one, and the next one is refused with a `retry_after`."""
        decisions = [await limiter_target.limiter.hit(SLOW, "ada") for _ in range(5)]
        assert [decision.allowed for decision in decisions] == [True, True, True, False, False]
        assert [decision.remaining for decision in decisions] == [2, 1, 0, 0, 0]
        assert [decision.retry_after for decision in decisions[:3]] == [0, 0, 0]
        assert 1100 < decisions[3].retry_after <= 1200
        assert 3500 < decisions[3].reset_after <= 3600
        assert {(decision.limit, decision.degraded) for decision in decisions} == {(3, False)}

    async def test_a_request_passes_after_retry_after(self, limiter_target: LimiterTarget) -> None:
        """A client that waits for the reported `retry_after` passes."""
        while (refused := await limiter_target.limiter.hit(QUICK, "ada")).allowed:
            pass
        assert 0 < refused.retry_after <= 0.05
        await limiter_target.advance(refused.retry_after)
        assert (await limiter_target.limiter.hit(QUICK, "ada")).allowed

    async def test_keys_and_policies_have_separate_budgets(self, limiter_target: LimiterTarget) -> None:
        """Each key of each policy has its own budget."""
        for _ in range(4):
            await limiter_target.limiter.hit(SLOW, "ada")
        for policy, key in ((SLOW, "bob"), (SLOW, ("ada", 1)), (RatePolicy("other", 3, 3600), "ada")):
            assert (await limiter_target.limiter.hit(policy, key)).remaining == 2

    async def test_a_cost_counts_as_that_many_requests(self, limiter_target: LimiterTarget) -> None:
        """A hit with a cost uses all of it or nothing; a cost that could never pass raises `ValueError`."""
        limiter = limiter_target.limiter
        assert (await limiter.hit(SLOW, "ada", cost=2)).remaining == 1
        assert not (await limiter.hit(SLOW, "ada", cost=2)).allowed
        assert (await limiter.hit(SLOW, "ada", cost=1)).allowed
        for cost in (0, -1, 4):
            with pytest.raises(ValueError, match="cost must be 1 to 3"):
                await limiter.hit(SLOW, "ada", cost=cost)
        with pytest.raises(TypeError, match="float"):
            await limiter.hit(SLOW, 1.5)  # type: ignore[arg-type]  # -- tests the wrong type

    async def test_peek_counts_nothing(self, limiter_target: LimiterTarget) -> None:
        """Peek returns the decision that a hit would get, and uses up no budget."""
        limiter = limiter_target.limiter
        for _ in range(5):
            peeked = await limiter.peek(SLOW, "ada")
            assert (peeked.allowed, peeked.remaining, peeked.retry_after, peeked.reset_after) == (True, 3, 0, 0)
        for _ in range(3):
            await limiter.hit(SLOW, "ada")
        peeked = await limiter.peek(SLOW, "ada")
        assert (peeked.allowed, peeked.remaining) == (False, 0)
        assert 1100 < peeked.retry_after <= 1200

    async def test_a_reset_restores_the_budget(self, limiter_target: LimiterTarget) -> None:
        """After a reset the whole burst is available again."""
        for _ in range(4):
            await limiter_target.limiter.hit(SLOW, "ada")
        await limiter_target.limiter.reset(SLOW, "ada")
        assert (await limiter_target.limiter.hit(SLOW, "ada")).remaining == 2

    async def test_a_lease_changes_no_decision(self, limiter_target: LimiterTarget) -> None:
        """With leases as many requests pass as without, and each gets the same `remaining`."""
        limiter = limiter_target.limiter
        for number in (99, 98):
            assert (await limiter.hit(LEASED, "bob")).remaining == number
            assert (await limiter.peek(LEASED, "bob")).remaining == number
        decisions = [await limiter.hit(LEASED, "ada") for _ in range(130)]
        assert [decision.allowed for decision in decisions] == [True] * 100 + [False] * 30
        assert [decision.remaining for decision in decisions[:100]] == list(range(99, -1, -1))

    async def test_of_concurrent_hits_the_burst_passes(self, limiter_target: LimiterTarget) -> None:
        """Concurrent hits are counted like sequential ones."""
        for policy in (SLOW, RatePolicy("leased", 3, 3600, lease=2)):
            decisions = await asyncio.gather(*(limiter_target.limiter.hit(policy, "ada") for _ in range(50)))
            assert sum(decision.allowed for decision in decisions) == 3

    @pytest.mark.parametrize("lease", [0, 4])
    async def test_several_budgets_count_all_or_none(self, limiter_target: LimiterTarget, lease: int) -> None:
        """A request under several budgets passes if each allows it; if one refuses it, it uses up none of them."""
        limiter = limiter_target.limiter
        near, far = RatePolicy("near", 3, 3600, lease=lease // 4), RatePolicy("far", 8, 3600, lease=lease)
        passed = []
        for key in ("a", "b", "c", "d"):
            decisions = [await limiter.hit_all([(near, key), (far, "all")]) for _ in range(4)]
            passed.append(sum(decision.allowed for _, decision in decisions))
            assert decisions[-1][0] == (near if key in {"a", "b"} else far)
            assert decisions[-1][1].retry_after > 0
        assert passed == [3, 3, 2, 0]
        assert (await limiter.peek(far, "all")).remaining == 0
        assert (await limiter.peek(near, "c")).remaining == 1  # the other budget refused its last requests
        assert (await limiter.peek(near, "d")).remaining == 3

    async def test_the_tightest_of_several_budgets_is_reported(self, limiter_target: LimiterTarget) -> None:
        """The decision of the budget with the least remaining is returned, of equal ones the first."""
        limiter = limiter_target.limiter
        near, far = RatePolicy("near", 3, 3600), RatePolicy("far", 4, 3600)
        assert (await limiter.hit_all([(near, "a"), (far, "all")]))[0] == near
        assert (await limiter.hit_all([(near, "b"), (far, "all")]))[0] == near
        policy, decision = await limiter.hit_all([(near, "c"), (far, "all")])
        assert (policy, decision.remaining, decision.limit) == (far, 1, 4)
        with pytest.raises(ValueError, match="cost must be 1 to 3"):
            await limiter.hit_all([(far, "all"), (near, "a")], cost=4)
        with pytest.raises(ValueError, match="at least one"):
            await limiter.hit_all([])

    async def test_concurrent_hits_keep_the_budget_that_they_share(self, limiter_target: LimiterTarget) -> None:
        """Concurrent hits of many keys do not exceed the budget that they share."""
        near, far = RatePolicy("near", 9, 3600, lease=3), RatePolicy("far", 20, 3600, lease=5)
        asks = (limiter_target.limiter.hit_all([(near, str(number % 10)), (far, "all")]) for number in range(100))
        decisions = await asyncio.gather(*asks)
        assert 15 <= sum(decision.allowed for _, decision in decisions) <= 20

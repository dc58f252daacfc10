"""The script that counts in Redis computes the same as the functions of `gcra`."""

import random
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit import gcra
from tequipy_caching.rate_limit.gcra import LEASE_GRACE_US, LEASE_US, Bucket, BudgetRequest, Grant, take, take_all
from tequipy_caching.redis.scripts import script

SLOW = RatePolicy("slow", 3, 3600)


def random_policy(dice: random.Random) -> RatePolicy:
    return RatePolicy("p", dice.randint(1, 400), dice.choice([0.01, 0.05, 7, 86_399]), burst=dice.randint(1, 30))


async def test_the_script_computes_the_same_as_the_function(redis_url: str, redis_prefix: str) -> None:
    """For the same requests and times, the script returns and stores the same as the Python function."""
    dice = random.Random(random.random())  # noqa: S311 -- no secret; repeats with pytest-randomly's seed
    async with Redis.from_url(redis_url) as redis:
        hit = redis.register_script(script("rate_hit"))
        for number in range(25):
            key, bucket = f"{redis_prefix}:{number}", Bucket()
            policy = random_policy(dice)
            held: dict[str, int] = {}
            ttl = dice.choice([2_000, LEASE_US + LEASE_GRACE_US])
            for _ in range(40):
                if dice.random() < 0.1:
                    policy = random_policy(dice)  # a policy of another release
                holder = dice.choice(["", "a", "b", "c"])
                want = dice.randint(0, 10) if holder else 0
                known = dice.choice([(0, 0), (dice.choice([1, bucket.born]), dice.randint(0, 3 * policy.increment))])
                spent, need = dice.randint(0, held.get(holder, 0)), dice.randint(0, min(3, policy.capacity))
                request = BudgetRequest(need, want if need else 0, holder, spent, *known)
                numbers = (policy.leak_rate, policy.increment, policy.capacity)
                allowed, *rest, now = await hit([key], [*numbers, *request, ttl])
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(gcra, "LEASE_US", ttl)
                    patch.setattr(gcra, "LEASE_GRACE_US", 0)
                    after, grant = take(policy, bucket, request, now)
                assert Grant(bool(allowed), *rest) == grant
                counted = request.need and (grant.allowed or grant.vanished or now < bucket.at)
                ended = (request.need or holder) and len(after.leases) < len(bucket.leases)
                if counted or ended:
                    bucket = after
                    held[holder] = grant.leased
                    if grant.allowed and grant.reset_after > 1_000_000 and dice.random() < 0.5:
                        # As if the server's clock had been set back since then.
                        bucket = bucket._replace(at=bucket.at + 5_000_000)
                        await cast("Any", redis).hset(key, "at", bucket.at)
                    if grant.allowed and grant.reset_after > 5_000_000 and dice.random() < 0.2:
                        bucket = bucket._replace(born=-now)  # as if the bucket had been reset and used again
                        await cast("Any", redis).hset(key, "born", -now)
                if not await redis.persist(key) and not await redis.exists(key):
                    bucket = Bucket()  # under the faster of two policies it ends earlier


async def test_the_script_counts_in_several_buckets_as_the_function(redis_url: str, redis_prefix: str) -> None:
    """For requests in three buckets, the script and the Python function agree: all buckets count, or none."""
    dice = random.Random(random.random())  # noqa: S311 -- as above
    async with Redis.from_url(redis_url) as redis:
        hit = redis.register_script(script("rate_hit"))
        for number in range(15):
            keys = [f"{redis_prefix}:several:{number}:{place}" for place in range(3)]
            policies = [RatePolicy("p", dice.randint(1, 400), 7, burst=dice.randint(2, 40)) for _ in keys]
            buckets = [Bucket()] * 3
            refusals = 0
            for _ in range(40):
                holder, need = dice.choice(["", "a", "b"]), dice.randint(0, 2)
                requests = [BudgetRequest(need, dice.randint(0, 10) if holder and need else 0, holder, 0) for _ in keys]
                numbers = [
                    part
                    for policy, request in zip(policies, requests, strict=True)
                    for part in (policy.leak_rate, policy.increment, policy.capacity, *request)
                ]
                *answer, now = await hit(keys, [*numbers, LEASE_US + LEASE_GRACE_US])
                taken = take_all(list(zip(policies, buckets, requests, strict=True)), now)
                rows = [Grant(bool(answer[start]), *answer[start + 1 : start + 8]) for start in range(0, 24, 8)]
                assert rows == [grant for _, grant in taken]
                buckets = [
                    after if need or (holder and len(after.leases) < len(before.leases)) else before
                    for before, (after, _) in zip(buckets, taken, strict=True)
                ]
                refusals += not all(grant.allowed for grant in rows)
            assert refusals < 40


async def test_the_largest_policy_is_counted_exactly(redis_url: str, redis_prefix: str) -> None:
    """The largest policy is counted without rounding, and a lease ends at the exact microsecond."""
    policy = RatePolicy("p", 999_999, 4_503, burst=1_000_000)
    async with Redis.from_url(redis_url) as redis:
        hit = redis.register_script(script("rate_hit"))
        numbers: list[int | str] = [
            policy.leak_rate,
            policy.increment,
            policy.capacity,
            999_971,
            9,
            "a",
            0,
            0,
            0,
            1_000_001,
        ]
        *_, now = await hit([redis_prefix], numbers)
        kept = await redis.hgetall(redis_prefix)
        assert kept == {
            b"at": b"%d" % now,
            b"level": b"%d" % (999_971 * policy.increment),
            b"height": b"%d" % policy.increment,
            b"born": b"%d" % now,
            b"a": b"9 %d" % (now + 1_000_001),
        }
        assert 4_503_000 < await redis.pttl(redis_prefix) <= 4_504_000

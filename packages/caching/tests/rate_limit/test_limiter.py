"""The limiter on a real Redis: the script's arithmetic, several processes, leases, and remembered denials."""

import asyncio
import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis.asyncio import Redis

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit import gcra
from tequipy_caching.rate_limit.gcra import LEASE_GRACE_US, LEASE_US, Bucket, BudgetRequest, Grant, take, take_all
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_caching.redis.scripts import script
from tequipy_devstack.servers import ValkeyServer

HAMMER = Path(__file__).with_name("hammer.py")
PROCESSES = 4
SLOW = RatePolicy("slow", 3, 3600)
LEASED = RatePolicy("leased", 1000, 3600, lease=50)

Build = Callable[..., Awaitable[RedisRateLimiter]]


async def calls(url: str) -> int:
    """Return how many scripts all clients of a server have run."""
    async with Redis.from_url(url) as redis:
        return int((await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"])


def random_policy(dice: random.Random) -> RatePolicy:
    return RatePolicy("p", dice.randint(1, 400), dice.choice([0.01, 0.05, 7, 86_399]), burst=dice.randint(1, 30))


async def test_the_script_computes_the_same_as_the_function(redis_url: str, redis_prefix: str) -> None:
    """For the same requests and times, the script returns and stores the same as the Python function."""
    dice = random.Random()  # noqa: S311 -- no secret; pytest-randomly prints and repeats its seed
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
    dice = random.Random()  # noqa: S311 -- as above
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


async def test_many_clients_of_a_network_cost_few_commands(limiters: Build, private_redis: ValkeyServer) -> None:
    """With a lease in each of three policies, a request costs under 0.1 commands, as with one policy."""
    limiter = await limiters(private_redis.url())
    near, mid, far = (RatePolicy(f"n{times}", 600 * times, 60, lease=20 * times) for times in (1, 8, 32))
    before, number = await calls(private_redis.url()), 400
    for _ in range(number):
        _, decision = await limiter.hit_all([(near, "a"), (mid, "a"), (far, "a")])
        assert decision.allowed
    cost = (await calls(private_redis.url()) - before) / number
    print(f"commands for each request under three leased budgets: {cost:.3f}")
    assert cost < 0.1


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


def hammer(url: str, prefix: str, policy: RatePolicy, **plan: Any) -> list[dict[str, Any]]:
    """Run processes that hit one key and start at the same moment; return their results."""
    settings = {"url": url, "prefix": prefix, "l2_timeout": 5}
    given = {
        "settings": settings,
        "policy": {
            name: value for name, value in dataclasses.asdict(policy).items() if name not in {"increment", "leak_rate"}
        },
        "plan": {"rate": 0, "at_once": 4, **plan},
    }
    command = [sys.executable, str(HAMMER), json.dumps(given)]
    with ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(PROCESSES)
        ]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        starts = time.monotonic() + 0.2
        for process in started:
            assert process.stdin is not None
            process.stdin.write(f"{starts}\n")
            process.stdin.flush()
        answers = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert all(answer["hits"] for answer in answers)
    return answers


def passed(answers: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return the request and response times of allowed requests, in the order of the responses."""
    return sorted(((asked, answered) for answer in answers for asked, answered in answer["passed"]), key=itemgetter(1))


def bound(policy: RatePolicy, asked: float, answered: float) -> float:
    """Return how many requests may pass between a first request and a last response, which enclose the decisions."""
    return policy.capacity + (answered - asked) * policy.limit / policy.period


def check_every_interval(policy: RatePolicy, moments: list[tuple[float, float]]) -> None:
    """Fail if more requests passed between any request and any response than the policy allows."""
    for first, _ in moments:
        inside = [answered for asked, answered in moments if asked >= first]
        for number, last in enumerate(inside, start=1):
            assert number <= bound(policy, first, last)


@pytest.mark.parametrize("lease", [0, 10])
def test_four_processes_share_one_limit(redis_url: str, redis_prefix: str, lease: int) -> None:
    """However fast four processes hit, no interval exceeds the bound, and nearly all of the limit is used."""
    policy = RatePolicy("shared", 100, 1, burst=50, lease=lease)
    answers = hammer(redis_url, redis_prefix, policy, seconds=2)
    moments = passed(answers)
    most = bound(policy, min(moments)[0], moments[-1][1])
    print(f"lease {lease}: {sum(answer['hits'] for answer in answers)} hits, {len(moments)} passed, bound {most:.1f}")
    check_every_interval(policy, moments)
    assert len(moments) > most / 2
    assert not any(answer["degraded"] for answer in answers)


async def test_a_lease_saves_commands(limiters: Build, private_redis: ValkeyServer) -> None:
    """Far from its limit, a client costs under 0.1 commands a request with a lease, and one command without."""
    limiter = await limiters(private_redis.url())
    costs = []
    for policy in (dataclasses.replace(LEASED, name="plain", lease=0), LEASED):
        before = await calls(private_redis.url())
        for _ in range(300):
            assert (await limiter.hit(policy, "ada")).allowed
        costs.append((await calls(private_redis.url()) - before) / 300)
    print(f"commands a request: {costs[0]:.3f} without, {costs[1]:.3f} with a lease")
    assert costs[0] >= 1
    assert costs[1] < 0.1


async def test_concurrent_requests_wait_for_one_lease(limiters: Build, private_redis: ValkeyServer) -> None:
    """Concurrent requests are served by one lease."""
    limiter = await limiters(private_redis.url())
    await limiter.peek(LEASED, "bob")  # so that the server knows the script
    before = await calls(private_redis.url())
    decisions = await asyncio.gather(*(limiter.hit(LEASED, "ada") for _ in range(50)))
    assert all(decision.allowed for decision in decisions)
    assert await calls(private_redis.url()) - before == 1


async def test_cancelling_a_lease_request_affects_no_other_request(limiters: Build, redis_url: str) -> None:
    """If the task that requests a lease is cancelled, the waiting ones ask for themselves."""
    limiter = await limiters(redis_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limiter._buckets, "run", lambda *_: asyncio.Event().wait())
        tasks = [asyncio.create_task(limiter.hit(LEASED, "ada")) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(not isinstance(answer, BaseException) and answer.allowed for answer in answers[1:])


@pytest.mark.parametrize("lease", [0, 2])
async def test_releases_with_different_limits_share_the_bound(limiters: Build, redis_url: str, lease: int) -> None:
    """With limits of 10 and 5 an hour at the same time, 10 requests pass and not 15, in one or two processes."""
    old, new = await limiters(redis_url), await limiters(redis_url)
    ten, five = RatePolicy("login", 10, 3600, lease=lease), RatePolicy("login", 5, 3600)
    orders = {
        "taking turns": [(old, ten), (new, five)] * 20,
        "10 first": [(old, ten)] * 20 + [(new, five)] * 20,
        "5 first": [(new, five)] * 20 + [(old, ten)] * 20,
        "one process": [(old, five), (old, ten)] * 20,
    }
    passed = {}
    for order, hits in orders.items():
        decisions = [await limiter.hit(policy, order) for limiter, policy in hits]
        assert not any(decision.degraded for decision in decisions)
        passed[order] = sum(decision.allowed for decision in decisions)
    print(passed)
    assert all(5 <= number <= 10 for number in passed.values())
    if not lease:
        assert set(passed.values()) == {10}


async def test_a_denial_is_remembered(limiters: Build, private_redis: ValkeyServer) -> None:
    """After a denial the process denies by itself until the denial ends, so that an attack does not reach Redis."""
    limiter = await limiters(private_redis.url())
    policy = RatePolicy("short", 4, 1)
    while (refused := await limiter.hit(policy, "ada")).allowed:
        pass
    before = await calls(private_redis.url())
    repeated = [await limiter.hit(policy, "ada", cost=cost) for cost in (1, 1, 3)]
    if await calls(private_redis.url()) == before:  # otherwise this machine was slower than the denial lasted
        assert not any(decision.allowed for decision in repeated)
        assert repeated[1].retry_after <= repeated[0].retry_after <= refused.retry_after
        assert repeated[2].retry_after > 0.5
        assert not (await limiter.peek(policy, "ada")).allowed
    await asyncio.sleep(refused.retry_after)
    assert (await limiter.hit(policy, "ada")).allowed


async def test_a_denial_of_five_does_not_deny_one(limiters: Build, redis_url: str) -> None:
    """After the denial of five requests at once, a single one may still pass."""
    limiter = await limiters(redis_url)
    policy = RatePolicy("costly", 5, 3600)
    assert (await limiter.hit(policy, "ada")).allowed
    assert not (await limiter.hit(policy, "ada", cost=5)).allowed
    assert (await limiter.peek(policy, "ada")).allowed
    assert (await limiter.hit(policy, "ada")).allowed


async def test_a_reset_lifts_denials_in_other_processes(limiters: Build, redis_url: str, eventually: Any) -> None:
    """After a reset in one process, another one forgets its denial before it ends."""
    one, other = await limiters(redis_url), await limiters(redis_url)
    for _ in range(4):
        await other.hit(SLOW, "ada")
    assert not (await other.hit(SLOW, "ada")).allowed
    started = time.monotonic()
    await one.reset(SLOW, "ada")

    async def lifted() -> bool:
        return (await other.peek(SLOW, "ada")).allowed

    await eventually(lifted)
    print(f"lifted after {(time.monotonic() - started) * 1000:.1f} ms")
    assert (await other.hit(SLOW, "ada")).remaining == 2


async def test_a_denial_that_raced_a_reset_is_not_remembered(
    limiters: Build, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denial that was in transit when the reset arrived is returned to its caller, but not remembered."""
    limiter = await limiters(redis_url)
    for _ in range(3):
        await limiter.hit(SLOW, "ada")
    answered, go, run = asyncio.Event(), asyncio.Event(), limiter._buckets.run

    async def held(*arguments: Any) -> list[Grant]:
        grants = await run(*arguments)
        answered.set()
        await go.wait()
        return grants

    monkeypatch.setattr(limiter._buckets, "run", held)
    racing = asyncio.create_task(limiter.hit(SLOW, "ada"))
    await answered.wait()
    await limiter.reset(SLOW, "ada")
    go.set()
    assert not (await racing).allowed
    assert (await limiter.hit(SLOW, "ada")).allowed


async def test_an_invalid_message_lifts_all_denials(limiters: Build, redis_url: str) -> None:
    """A message that cannot be parsed lifts all denials, because it may have been any reset."""
    limiter = await limiters(redis_url)
    for _ in range(4):
        await limiter.hit(SLOW, "ada")
    before = limiter._refused(SLOW, gcra.bucket_name(SLOW, "ada"), 1, 0)
    assert before is not None
    with pytest.raises(ValueError, match="bucket"):
        limiter.on_message(["a list"])
    limiter.on_gap()
    assert limiter._refused(SLOW, gcra.bucket_name(SLOW, "ada"), 1, 0) is None


async def test_decisions_are_counted(limiters: Build, redis_url: str, free_port: Callable[[], int]) -> None:
    """Each hit is counted by policy, outcome and degradation; the key is not a label."""
    registry, other = CollectorRegistry(), CollectorRegistry()
    limiter = await limiters(redis_url, registry=registry)
    for _ in range(5):
        await limiter.hit(SLOW, "ada")
        await limiter.peek(SLOW, "ada")
    alone = await limiters(f"redis://127.0.0.1:{free_port()}", live=False, registry=other)
    await alone.hit(SLOW, "ada")
    text = generate_latest(registry).decode()
    assert 'ratelimit_decisions_total{degraded="false",outcome="allowed",policy="slow"} 3.0' in text
    assert 'ratelimit_decisions_total{degraded="false",outcome="denied",policy="slow"} 2.0' in text
    assert (
        'ratelimit_decisions_total{degraded="true",outcome="allowed",policy="slow"} 1.0'
        in generate_latest(other).decode()
    )
    assert "ada" not in text


@pytest.mark.prove
@pytest.mark.timeout(240)
def test_prove_ten_times_the_limit(private_redis: ValkeyServer, redis_prefix: str) -> None:
    """Measure how many requests pass, and the commands used, at ten times a limit from four processes for 20 s."""
    for lease in (0, 50):
        policy = RatePolicy(f"storm{lease}", 100, 1, burst=200, lease=lease)
        before = asyncio.run(calls(private_redis.url()))
        rate = 10 * policy.limit / PROCESSES
        answers = hammer(private_redis.url(), redis_prefix, policy, seconds=20, rate=rate, at_once=8)
        commands = asyncio.run(calls(private_redis.url())) - before
        moments, hits = passed(answers), sum(answer["hits"] for answer in answers)
        most = bound(policy, min(moments)[0], moments[-1][1])
        print(
            f"\nten times the limit, lease {lease}: {hits} hits by {PROCESSES} processes, {len(moments)} passed, bound "
            f"{most:.1f}; {commands / hits:.3f} commands a request"
        )
        check_every_interval(policy, moments)
    for lease in (0, 50):
        policy = RatePolicy(f"calm{lease}", 1000, 1, lease=lease)
        before = asyncio.run(calls(private_redis.url()))
        answers = hammer(private_redis.url(), redis_prefix, policy, seconds=10, rate=25, at_once=1)
        hits = sum(answer["hits"] for answer in answers)
        assert sum(len(answer["passed"]) for answer in answers) == hits
        commands = asyncio.run(calls(private_redis.url())) - before
        print(f"a tenth of the limit, lease {lease}: {hits} hits, {commands / hits:.3f} commands a request")

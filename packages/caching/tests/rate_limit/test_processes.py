"""Several processes share one limit, at any load."""

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from tequipy_caching import RatePolicy
from tequipy_devstack.servers import ValkeyServer

from .counting import calls

HAMMER = Path(__file__).with_name("hammer.py")
PROCESSES = 4


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

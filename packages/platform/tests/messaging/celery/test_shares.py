"""Messages that fail and are retried do not keep a second worker from its share."""

import time

import pytest
from redis import Redis

from tequipy_platform.messaging import SqlUnitOfWork

from .releases import Releases


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_retrying_messages_are_held_by_nobody(releases: Releases) -> None:
    """Of 1,000 retrying messages a worker holds those that it runs, none runs more often than it failed, and a second
    worker gets its share of 300 healthy ones.
    """

    def write_failing(work: SqlUnitOfWork) -> None:
        for number in range(1000):
            work.outbox.add("release.failing", number=number)

    def write_healthy(work: SqlUnitOfWork) -> None:
        for number in range(300):
            work.outbox.add("release.effect", number=number)

    releases.start("relay", "relay")
    releases.start("first", "run")
    releases.add(write_failing)
    deadline = time.monotonic() + 240
    while int(releases.sql("select count(*) from platform.outbox where failed_attempts > 0")[0]) < 1000:
        assert time.monotonic() < deadline, releases.logs()
        time.sleep(0.2)
    with Redis.from_url(releases.broker_url) as redis:
        held = int(redis.hlen("unacked"))
    second = releases.start("second", "run").pid
    while releases.sql(f"select count(*) from public.effects where worker = {second}") == ["0"]:  # noqa: S608 -- until it takes part
        assert time.monotonic() < deadline, releases.logs()
        time.sleep(0.1)
    releases.add(write_healthy)
    while len(effects := releases.sql("select worker from public.effects where task = 'release.effect'")) < 300:
        assert time.monotonic() < deadline, releases.logs()
        time.sleep(0.2)
    runs = int(releases.sql("select count(*) from public.effects where task = 'release.failing'")[0])
    failures = int(releases.sql("select sum(attempts) from platform.outbox where task = 'release.failing'")[0])
    shares = sorted(effects.count(worker) for worker in set(effects))
    print(f"\nheld by the first: {held}; {runs} runs, {runs - failures} redundant; shares of 300: {shares}")
    assert held <= 4, "two children, and one message for each that comes next"
    assert runs <= failures
    assert len(shares) == 2
    assert shares[0] >= 60

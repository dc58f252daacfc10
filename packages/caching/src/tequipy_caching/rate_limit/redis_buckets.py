"""The buckets in Redis: the scripts that count and reset, and the check whether the server evicts buckets."""

import logging
from collections.abc import Sequence
from typing import Final

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.rate_limit.gcra import LEASE_GRACE_US, LEASE_US, BudgetRequest, Grant
from tequipy_caching.rate_limit.policies import RatePolicy
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.link import RedisLink

TOPIC: Final = "resets"
"""The topic of the messages about buckets that were reset."""
_NUMBERS: Final = 8
"""How many numbers the script returns for each budget; the last number is the server's time."""

Budget = tuple[RatePolicy, str]
"""A policy and the name of its bucket."""

logger = logging.getLogger(__name__)


class RedisBuckets:
    """Runs the scripts of the limiter. Every coroutine method but `check_eviction` raises `CacheUnavailable`."""

    def __init__(self, link: RedisLink, backplane: Backplane) -> None:
        self.eviction_unknown = True
        """Whether the server has not said yet whether it evicts keys."""
        self._link = link
        self._backplane = backplane

    async def run(self, budgets: Sequence[Budget], requests: Sequence[BudgetRequest]) -> list[Grant]:
        """Count requests in their buckets, all or none, in one script; return a grant for each."""
        numbers = [
            number
            for (policy, _), request in zip(budgets, requests, strict=True)
            for number in (policy.leak_rate, policy.increment, policy.capacity, *request)
        ]
        keys = [self._key(name) for _, name in budgets]
        answer = await self._link.run("rate_hit", keys, [*numbers, LEASE_US + LEASE_GRACE_US])
        expected = _NUMBERS * len(budgets) + 1
        if not (isinstance(answer, list) and len(answer) == expected and all(isinstance(each, int) for each in answer)):
            raise CacheUnavailable("Redis sent an invalid response to 'rate_hit'")
        rows = [answer[start : start + _NUMBERS] for start in range(0, len(answer) - 1, _NUMBERS)]
        return [Grant._make((bool(allowed), *rest, bool(vanished))) for allowed, *rest, vanished in rows]

    async def reset(self, name: str, remembered_ms: int) -> None:
        """Empty a bucket, and publish this to all processes, which may remember it for `remembered_ms` milliseconds."""
        message = self._backplane.message(TOPIC, name)
        await self._link.run_and_publish("rate_reset", [self._key(name)], [remembered_ms], message=message)

    async def check_eviction(self) -> None:
        """Ask the server for its eviction policy, and log a warning if it evicts; most policies evict buckets first."""
        self.eviction_unknown = False
        try:
            policy = await self._link.run("eviction", [])
        except CacheUnavailable:
            self.eviction_unknown = True
            return
        if isinstance(policy, bytes):
            extra = {**self._link.labels, "maxmemory_policy": policy.decode(errors="replace")}
            logger.warning("limiter_eviction_detected", extra=extra)

    def _key(self, name: str) -> str:
        return f"{self._link.prefix}:{name}"

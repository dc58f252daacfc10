"""The rate limiter on Redis: it counts for all processes there, and remembers leases and denials in memory."""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from cachetools import LRUCache

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.cache.invalidation_guard import InvalidationGuards
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.policies import CachePolicy
from tequipy_caching.cache.recovery import Recoverable
from tequipy_caching.rate_limit.denials import Denials
from tequipy_caching.rate_limit.gcra import (
    Buckets,
    BudgetRequest,
    Grant,
    bucket_name,
    decide_all_locally,
    decide_locally,
)
from tequipy_caching.rate_limit.leases import Lease, Leases, now_us
from tequipy_caching.rate_limit.metrics import DecisionCounts
from tequipy_caching.rate_limit.policies import RateDecision, RateLimiter, RatePolicy, check_hits, decisive
from tequipy_caching.rate_limit.redis_buckets import TOPIC, Budget, RedisBuckets
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.messages import Listener

_BATCH_SIZE: Final = 100
"""How many leases one script releases."""


class _Known(NamedTuple):
    """The known state of a bucket, which is sent with later requests in case the server evicts the bucket."""

    born: int
    until: int
    """When the bucket will be empty, in microseconds of the monotonic clock."""


class RedisRateLimiter(RateLimiter, Listener, Recoverable[int]):
    """Returned by `build_rate_limiter`. `policy` bounds what it keeps in memory: denials, leases and known buckets.

    An entry of the recovery queue is a reset: the bucket's name, and for how many milliseconds processes may remember
    it.
    """

    def __init__(self, link: RedisLink, policy: CachePolicy, *, backplane: Backplane, counts: DecisionCounts) -> None:
        self.link = link
        self.backplane = backplane
        self._counts = counts
        self._denials = Denials(policy)
        self._leases = Leases(policy.l1_maxsize)
        self._release_task: asyncio.Task[None] | None = None
        self._known: LRUCache[str, _Known] = LRUCache(policy.l1_maxsize)
        self._buckets = RedisBuckets(link, backplane)
        self._local_buckets = Buckets(policy.l1_maxsize)
        self._guards = InvalidationGuards()
        link.recovery.register(TOPIC, self)
        backplane.listen(TOPIC, self)

    async def hit(self, policy: RatePolicy, key: Key, cost: int = 1) -> RateDecision:
        """Count a request, unless the policy denies it."""
        _, decision = await self.hit_all([(policy, key)], cost)
        return decision

    async def hit_all(self, hits: Sequence[tuple[RatePolicy, Key]], cost: int = 1) -> tuple[RatePolicy, RateDecision]:
        """Count a request under several policies, unless one of them denies it, in at most one round trip."""
        spent = self.try_hit_all(hits, cost)
        if spent is not None:  # the usual case
            return spent
        check_hits(hits, cost)
        budgets = [(policy, bucket_name(policy, key)) for policy, key in hits]
        decisions = self._remembered_denials(budgets, cost)
        if decisions is None and await self._wait_for_leases(budgets):
            spent = self.try_hit_all(hits, cost)
            if spent is not None:
                return spent
            decisions = self._remembered_denials(budgets, cost)
        if decisions is None:
            decisions = await self._ask(budgets, cost)
        # A decision is None if it is unknown, because the remembered denial of another budget made it unnecessary.
        known = [
            (policy, name, decision)
            for (policy, name), decision in zip(budgets, decisions, strict=True)
            if decision is not None
        ]
        limiting_policy, result = decisive((policy, decision) for policy, _, decision in known)
        for policy, name, decision in known:
            if result.allowed and not decision.degraded and policy.on_store_error == "local":
                self._local_buckets.count(policy, name, cost, now_us())  # in case Redis becomes unreachable
            # If the request is denied, the budgets that would have allowed it have decided nothing.
            if decision.allowed == result.allowed:
                self._counts.count(policy.name, decision)
        return limiting_policy, result

    async def peek(self, policy: RatePolicy, key: Key) -> RateDecision:
        """Return the decision that a request would get now, without counting it."""
        name, now = bucket_name(policy, key), now_us()
        denial = self._denials.get(policy, name, 1, now)
        if denial is not None:
            return denial
        try:
            (grant,) = await self._buckets.run(
                [(policy, name)], [self._with_known_level(BudgetRequest(0), policy, name, now)]
            )
        except CacheUnavailable:
            return decide_locally(policy, self._local_buckets, name, 0, now)
        lease = self._leases.get(policy, name)
        if lease is None or not lease.left or now >= lease.ends:
            return grant.decision(policy)
        return grant._replace(allowed=True, remaining=grant.remaining + lease.left, retry_after=0).decision(policy)

    async def reset(self, policy: RatePolicy, key: Key) -> None:
        """Empty the bucket, here and in all processes."""
        name = bucket_name(policy, key)
        # No process remembers the bucket for longer than a full one takes to become empty.
        remembered_ms = 1 + policy.capacity * policy.increment // (policy.leak_rate * 1000)
        self._forget(name)
        try:
            await self._buckets.reset(name, remembered_ms)
        except (CacheUnavailable, asyncio.CancelledError) as error:  # a cancelled request may have been executed or not
            self.link.recovery.add(TOPIC, name, remembered_ms)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._forget(name)  # concurrent requests may have remembered the old state

    def on_message(self, body: Any) -> None:  # noqa: ANN401 -- JSON
        """Forget the state of a bucket that another process has reset."""
        if not isinstance(body, str):
            raise ValueError("not the name of a bucket")  # noqa: TRY004 -- listeners raise ValueError
        self._forget(body)

    def on_gap(self) -> None:
        """Forget all denials, because any of them may have been reset."""
        self._denials.clear()
        self._guards.invalidate_all()

    def merge(self, old: int, new: int) -> int:
        """Return the reset that processes may remember for longer."""
        return max(old, new)

    def overflow(self) -> Mapping[Hashable, int]:
        """Drop the resets: denials end by themselves."""
        return {}

    async def replay(self, entries: Mapping[Hashable, int]) -> None:
        """Send resets that could not be sent before."""
        for name, remembered_ms in entries.items():
            await self._buckets.reset(str(name), remembered_ms)

    async def __aenter__(self) -> Self:
        self.link.loop_binding.check()
        self.backplane.start()
        if self._buckets.eviction_unknown:
            await self._buckets.check_eviction()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.backplane.stop()
        if self._release_task is not None:
            await self._release_task
            self._release_task = None
        self._leases.forget_all()
        await self._release_forgotten()
        await self.link.close()

    def try_hit_all(
        self, hits: Sequence[tuple[RatePolicy, Key]], cost: int = 1
    ) -> tuple[RatePolicy, RateDecision] | None:
        """Count a request in the leases of all its budgets, and return its result; None unless all have enough."""
        now, held = now_us(), list[Lease]()
        for policy, key in hits:
            lease = self._leases.get(policy, bucket_name(policy, key)) if policy.lease else None
            if lease is None or not 1 <= cost <= lease.left or now >= lease.ends:
                return None
            held.append(lease)
        result = None
        for (policy, _), lease in zip(hits, held, strict=True):
            decision = lease.spend(cost, now)
            self._counts.count(policy.name, decision)
            if policy.on_store_error == "local":
                self._local_buckets.count(policy, lease.name, cost, now)  # in case Redis becomes unreachable
            if result is None or decision.remaining < result[1].remaining:  # as `decisive`: all are allowed
                result = policy, decision
        return result

    def _remembered_denials(self, budgets: Sequence[Budget], cost: int) -> Sequence[RateDecision | None] | None:
        """Return the remembered denials of these budgets, or None for a budget without one; None if there is none."""
        now = now_us()
        denials = [self._denials.get(policy, name, cost, now) for policy, name in budgets]
        return denials if any(denial is not None for denial in denials) else None

    async def _wait_for_leases(self, budgets: Sequence[Budget]) -> bool:
        """Wait while another task requests leases for these budgets; return whether one did."""
        leases = [self._leases.get(policy, name) for policy, name in budgets if policy.lease]
        asked = {lease.asked for lease in leases if lease is not None and lease.asked is not None}
        for event in asked:
            await event.wait()
        return bool(asked)

    async def _ask(self, budgets: Sequence[Budget], cost: int) -> Sequence[RateDecision]:
        """Ask Redis for decisions, and for leases that no other task is requesting."""
        now, answered = now_us(), asyncio.Event()
        requests, ours = list[BudgetRequest](), dict[str, Lease]()
        for policy, name in budgets:
            lease = self._leases.get_or_add(policy, name) if policy.lease else None
            if lease is None or lease.asked is not None:
                requests.append(self._with_known_level(BudgetRequest(cost), policy, name, now))
                continue
            ours[name] = lease
            lease.asked = answered
            lease.left = 0  # the request releases the rest
            requests.append(
                self._with_known_level(BudgetRequest(cost, policy.lease, lease.id, lease.spent), policy, name, now)
            )
        self._schedule_release()  # of leases that the new ones have displaced
        try:
            with self._guards.hold() as guard:
                try:
                    grants = await self._buckets.run(budgets, requests)
                except CacheUnavailable:
                    return decide_all_locally(budgets, self._local_buckets, cost, now)
                if self._buckets.eviction_unknown:  # Redis was unreachable at the start
                    await self._buckets.check_eviction()
                took = now_us() - now
                for (policy, name), request, grant in zip(budgets, requests, grants, strict=True):
                    if name in ours:
                        self._renew(ours[name], grant, now)
                    # Otherwise the bucket may have become empty while the request was on its way.
                    if grant.vanished and request.known > took * policy.leak_rate:
                        self._counts.count_vanished(policy.name)
                    if guard.is_current(name):
                        self._remember(policy, name, grant, cost, now)
        finally:
            for lease in ours.values():
                lease.asked = None
            answered.set()
        return [grant.decision(policy) for (policy, _), grant in zip(budgets, grants, strict=True)]

    def _remember(self, policy: RatePolicy, name: str, grant: Grant, cost: int, now: int) -> None:
        """Remember the state of a bucket, and a denial, from the response to a request made at `now`."""
        self._known[name] = _Known(grant.born, now + grant.used_for)
        if not grant.allowed:
            self._denials.add(policy, name, cost, grant, now)

    def _with_known_level(self, request: BudgetRequest, policy: RatePolicy, name: str, now: int) -> BudgetRequest:
        """Add to the request what this process knows about the bucket, in case the server has evicted it."""
        born, until = self._known.get(name, _Known(0, 0))
        return request._replace(born=born, known=(until - now) * policy.leak_rate) if until > now else request

    def _renew(self, lease: Lease, grant: Grant, asked: int) -> None:
        """Add the grant of a request that was made at `asked`; release it if the lease was forgotten meanwhile."""
        lease.renew(grant, asked)
        if not self._leases.holds(lease):
            self._leases.forget(lease)
            self._schedule_release()

    def _schedule_release(self) -> None:
        if self._leases.forgotten and (self._release_task is None or self._release_task.done()):
            self._release_task = asyncio.create_task(self._release_forgotten(), name="limiter-leases")

    async def _release_forgotten(self) -> None:
        """Release the rest of forgotten leases; leases whose release fails expire by themselves."""
        forgotten = self._leases.forgotten
        while forgotten:
            some = forgotten[-_BATCH_SIZE:]
            del forgotten[-_BATCH_SIZE:]
            now, budgets = now_us(), [(lease.policy, lease.name) for lease in some]
            with suppress(CacheUnavailable), self._guards.hold() as guard:
                requests = [
                    self._with_known_level(
                        BudgetRequest(0, holder=lease.id, spent=lease.spent), lease.policy, lease.name, now
                    )
                    for lease in some
                ]
                grants = await self._buckets.run(budgets, requests)
                for lease, grant in zip(some, grants, strict=True):
                    if guard.is_current(lease.name):
                        self._known[lease.name] = _Known(grant.born, now + grant.used_for)

    def _forget(self, name: str) -> None:
        """Forget what is known about a bucket, except for leases, which may still be used."""
        self._denials.forget(name)
        self._known.pop(name, None)
        self._guards.invalidate(name)
        self._local_buckets.forget(name)

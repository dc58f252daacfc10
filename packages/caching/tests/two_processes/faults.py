"""Faults: each function switches off one mechanism of the cache, and the state machine must notice."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from math import inf
from typing import Any
from unittest.mock import AsyncMock

import pytest

from tequipy_caching import CacheUnavailable
from tequipy_caching.cache.invalidation_guard import InvalidationGuard
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.single_flight import InFlightLoad, InFlightLoads
from tequipy_caching.cache.tiered import TieredCache
from tequipy_caching.expiring_set import shared_set
from tequipy_caching.expiring_set.shared_set import SharedExpiringSet
from tequipy_caching.redis import backplane, link, scripts
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.tier import RedisTier

Break = Callable[[pytest.MonkeyPatch], None]


def change_script(patch: pytest.MonkeyPatch, name: str, before: str, after: str) -> None:
    """Replace a part of a script's text."""
    right = scripts.script
    assert before in right(name)

    def script(wanted: str) -> str:
        return right(wanted).replace(before, after) if wanted == name else right(wanted)

    uncached = scripts.digest_of.__wrapped__  # the digest of the changed script must not remain after the test
    for module in (scripts, link, backplane):
        patch.setattr(module, "script", script)
        patch.setattr(module, "digest_of", uncached)


def do_not_publish_refused_changes(patch: pytest.MonkeyPatch) -> None:
    """Row 1: a change that Redis refuses is not published."""
    refuse = RedisLink._refuse

    async def refuse_silently(self: RedisLink, reason: str, error: Exception, _: str | None) -> None:
        await refuse(self, reason, error, None)

    patch.setattr(RedisLink, "_refuse", refuse_silently)


def trust_redis_while_writes_are_refused(patch: pytest.MonkeyPatch) -> None:
    """Row 1: a process that starts while Redis refuses writes uses the values in Redis."""
    patch.setattr("tequipy_caching.cache.recovery.RecoveryQueue.distrust", lambda _: None)


def do_not_ask_whether_writes_are_refused(patch: pytest.MonkeyPatch) -> None:
    """Row 1: a disconnected process uses the values in Redis, even if Redis refuses writes."""
    change_script(patch, "read", "ARGV[8] == '1'", "false")


def do_not_replay(patch: pytest.MonkeyPatch) -> None:
    """Rows 1 and 5: changes that Redis has refused or not received are not sent again."""
    patch.setattr("tequipy_caching.cache.recovery.RecoveryQueue.replay", AsyncMock())


def store_without_mark(patch: pytest.MonkeyPatch) -> None:
    """Row 2: a vanished key is treated as one that never existed."""
    change_script(patch, "store", "if state == ARGV[at] then", "if state == ARGV[at] or state == '' then")


def connected_by_flag(patch: pytest.MonkeyPatch) -> None:
    """Row 4: `live` is a flag that the event loop clears, not a deadline."""
    patch.setattr(
        Backplane, "live_until", property(lambda self: inf if self._joined else -inf, lambda *_: None), raising=False
    )


def join_without_comparing(patch: pytest.MonkeyPatch) -> None:
    """Row 5: callers of a disconnected process join loads from before a change."""

    async def leave_nothing(*_: Any) -> None: ...

    patch.setattr(TieredCache, "_forget_outdated_loads", leave_nothing)


def join_loads_of_unknown_state(patch: pytest.MonkeyPatch) -> None:
    """Row 5: callers of a disconnected process join loads that have no state to compare."""
    looked_up = InFlightLoads.looked_up

    async def with_state(self: InFlightLoads[Any], keys: Sequence[Key]) -> Mapping[Key, InFlightLoad[Any]]:
        return {key: load for key, load in (await looked_up(self, keys)).items() if key in load.seen}

    patch.setattr(InFlightLoads, "looked_up", with_state)


def join_during_the_lookup(patch: pytest.MonkeyPatch) -> None:
    """Row 5: callers of a disconnected process join loads whose lookups may have been answered before a change."""
    looked_up = InFlightLoads.looked_up

    async def at_once(self: InFlightLoads[Any], keys: Sequence[Key]) -> Mapping[Key, InFlightLoad[Any]]:
        return await looked_up(self, [key for key in keys if (load := self.get(key)) and load.looked_up.is_set()])

    patch.setattr(InFlightLoads, "looked_up", at_once)


def join_without_an_answer(patch: pytest.MonkeyPatch) -> None:
    """Row 5: callers of a disconnected process join all loads if Redis refuses to tell the states of their keys."""
    changed = RedisTier.changed

    async def changed_or_nothing(self: RedisTier[Any], seen: Mapping[Key, object]) -> AbstractSet[Key]:
        with suppress(CacheUnavailable):
            return await changed(self, seen)
        return frozenset()

    patch.setattr(RedisTier, "changed", changed_or_nothing)


def do_not_detect_lost_sets(patch: pytest.MonkeyPatch) -> None:
    """Row 6: lost sets are not detected."""
    patch.setattr(SharedExpiringSet, "check", lambda *_: None)


def do_not_wait_for_other_processes(patch: pytest.MonkeyPatch) -> None:
    """Row 6: a new set is live before the other processes have added their members."""
    patch.setattr(shared_set, "OTHERS_WITHIN", 0.0)


def one_channel_for_all_databases(patch: pytest.MonkeyPatch) -> None:
    """Row 10: the channel's name lacks the database."""
    build = RedisLink.__init__

    def init(self: RedisLink, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **options)
        self.channel = self.channel.rpartition(":")[0]

    patch.setattr(RedisLink, "__init__", init)


def do_not_compare_the_epoch(patch: pytest.MonkeyPatch) -> None:
    """An older snapshot: a restarted server continues with its epoch."""
    change_script(patch, "join", " back or not known[2] or run and known[1] ~= run", " not known[2]")


def store_in_l1_after_an_invalidation(patch: pytest.MonkeyPatch) -> None:
    """The invalidation guard of L1: a load that raced an invalidation is stored in L1."""
    patch.setattr(InvalidationGuard, "is_current", lambda *_: True)


def store_in_l2_after_an_invalidation(patch: pytest.MonkeyPatch) -> None:
    """The invalidation guard of L2: a load that raced an invalidation is stored in L2."""
    change_script(patch, "store", "if state == ARGV[at] then", "if true then")


def publish_nothing(patch: pytest.MonkeyPatch) -> None:
    """The channel: deletes are not published."""
    change_script(patch, "remove", "\npublish()\nreturn 1", "\nreturn 1")


def ignore_gaps(patch: pytest.MonkeyPatch) -> None:
    """The channel: gaps are ignored, so that missed messages have no effect."""
    patch.setattr(Backplane, "_notify_gap", lambda _: None)

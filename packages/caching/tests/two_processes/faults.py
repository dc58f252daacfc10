"""Mechanisms taken out on purpose: the machine must find out for each."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from tequipy_caching.domain.invalidation_guard import InvalidationGuard
from tequipy_caching.domain.tiered import TieredCache
from tequipy_caching.infrastructure import backplane, expiring_set, redis
from tequipy_caching.infrastructure.backplane import Backplane
from tequipy_caching.infrastructure.expiring_set import SharedExpiringSet
from tequipy_caching.infrastructure.redis import RedisLink

Break = Callable[[pytest.MonkeyPatch], None]


def change_script(patch: pytest.MonkeyPatch, name: str, before: str, after: str) -> None:
    """Have a script run with another text."""
    right = redis.script
    assert before in right(name)

    def script(wanted: str) -> str:
        return right(wanted).replace(before, after) if wanted == name else right(wanted)

    patch.setattr(redis, "script", script)
    patch.setattr(backplane, "script", script)
    redis.digest_of.cache_clear()


def publish_no_refused_change(patch: pytest.MonkeyPatch) -> None:
    """Row 1: a change that Redis refuses is told to nobody."""
    refuse = RedisLink._refuse

    async def refuse_silently(self: RedisLink, reason: str, error: Exception, _: str | None) -> None:
        await refuse(self, reason, error, None)

    patch.setattr(RedisLink, "_refuse", refuse_silently)


def trust_redis_while_it_refuses(patch: pytest.MonkeyPatch) -> None:
    """Row 1: a process that starts while Redis refuses writes believes what Redis has."""
    patch.setattr("tequipy_caching.domain.recovery.RecoveryQueue.distrust", lambda _: None)


def ask_not_whether_redis_refuses(patch: pytest.MonkeyPatch) -> None:
    """Row 1: a process whose channel is cut believes what Redis has, whether it refuses writes or not."""
    change_script(patch, "read", "ARGV[8] == '1'", "false")


def store_without_mark(patch: pytest.MonkeyPatch) -> None:
    """Row 2: what has vanished is taken for what was never there."""
    change_script(patch, "store", "if state == ARGV[at] then", "if state == ARGV[at] or state == '' then")


def connected_by_flag(patch: pytest.MonkeyPatch) -> None:
    """Row 4: `live` is a flag that the event loop clears, not a deadline."""
    patch.setattr(
        Backplane, "live_until", property(lambda self: inf if self._joined else -inf, lambda *_: None), raising=False
    )


def join_without_comparing(patch: pytest.MonkeyPatch) -> None:
    """Row 5: callers of a process whose channel is cut join loads from before."""

    async def leave_nothing(*_: Any) -> None: ...

    patch.setattr(TieredCache, "_forget_outdated_loads", leave_nothing)


def notice_no_lost_set(patch: pytest.MonkeyPatch) -> None:
    """Row 6: nobody looks whether Redis still has the set."""
    patch.setattr(SharedExpiringSet, "check", lambda *_: None)


def wait_for_no_others(patch: pytest.MonkeyPatch) -> None:
    """Row 6: a new set is live before the others have put back what they hold."""
    patch.setattr(expiring_set, "OTHERS_WITHIN", 0.0)


def one_channel_for_all_databases(patch: pytest.MonkeyPatch) -> None:
    """Row 10: the channel's name lacks the database."""
    build = RedisLink.__init__

    def init(self: RedisLink, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **options)
        self.channel = self.channel.rpartition(":")[0]

    patch.setattr(RedisLink, "__init__", init)


def compare_no_epoch(patch: pytest.MonkeyPatch) -> None:
    """The older snapshot: a server that has started again goes on with its epoch."""
    change_script(patch, "join", " back or not known[2] or run and known[1] ~= run", " not known[2]")


def keep_in_memory_whatever_comes(patch: pytest.MonkeyPatch) -> None:
    """The guard of memory: a load that raced an invalidation is kept."""
    patch.setattr(InvalidationGuard, "is_current", lambda *_: True)


def store_whatever_comes(patch: pytest.MonkeyPatch) -> None:
    """The guard of Redis: a load that raced an invalidation is stored."""
    change_script(patch, "store", "if state == ARGV[at] then", "if true then")


def publish_nothing(patch: pytest.MonkeyPatch) -> None:
    """The channel: changes are told to nobody."""
    change_script(patch, "remove", "\npublish()\nreturn 1", "\nreturn 1")


def ignore_gaps(patch: pytest.MonkeyPatch) -> None:
    """The channel: who joins it again does not ask what was told meanwhile."""
    patch.setattr(Backplane, "_notify_gap", lambda _: None)

"""The expiring sets of a process, by name, and the check that Redis still has them."""

import asyncio
from typing import Final

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.cache.keys import check_name
from tequipy_caching.expiring_set.ports import Source
from tequipy_caching.expiring_set.shared_set import SharedExpiringSet
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.cancellation import cancel_and_wait
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.scripts import parsing

CHECK_EVERY: Final = 1.0
"""Seconds between two checks that Redis still has the sets."""


class ExpiringSets:
    """The sets of a process, by name."""

    def __init__(self, link: RedisLink, backplane: Backplane) -> None:
        self._link = link
        self._backplane = backplane
        self._sets: dict[str, SharedExpiringSet] = {}
        self._running = False
        self._task: asyncio.Task[None] | None = None

    def named(self, name: str, source: Source | None) -> SharedExpiringSet:
        """Return the set with this name; the same object at each call."""
        check_name(name)
        made = self._sets.get(name)
        if made is None:
            made = self._sets[name] = SharedExpiringSet(name, source, link=self._link, backplane=self._backplane)
            if self._running:
                made.start()
        elif source not in {None, made.source}:
            raise ValueError(f"the set {name!r} has another source")
        return made

    def start(self) -> None:
        """Start to compare all sets, and to check that Redis still has them."""
        self._running = True
        for made in self._sets.values():
            made.start()
        self._task = asyncio.create_task(self._stay_checked(), name="cache-sets")

    async def stop(self) -> None:
        """Stop comparing all sets."""
        self._running = False
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        for made in self._sets.values():
            await made.stop()

    async def _stay_checked(self) -> None:
        """Ask for the sentinels of all live sets, again and again, because Redis may lose a set alone."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            sets = [made for made in self._sets.values() if made.live]
            if not sets:
                continue
            try:
                answer = await self._link.run("set_sentinels", [made.key for made in sets])
                with parsing("set_sentinels"):
                    pairs = list(zip(sets, answer, strict=True))
            except CacheUnavailable:
                continue  # the channel or the next check will detect a loss
            for made, sentinel in pairs:
                made.check(sentinel)

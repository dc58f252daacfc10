"""A small set that lives in every process: in memory, spread by the channel, kept in Redis for those who come later."""

import asyncio
import logging
import secrets
from collections.abc import Hashable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar

from tequipy_caching.domain.exceptions import CacheUnavailable
from tequipy_caching.domain.expiring_set import ExpiringSet, Source, check_member, ttls_of
from tequipy_caching.domain.names import check_name
from tequipy_caching.domain.policies import check_ttl
from tequipy_caching.domain.recovery import Recoverable
from tequipy_caching.domain.tiers import Listener
from tequipy_caching.infrastructure.backplane import Backplane
from tequipy_caching.infrastructure.cancellation import cancel_and_wait
from tequipy_caching.infrastructure.redis import RedisLink, reading

SOURCE_TIMEOUT: Final = 10.0
"""Seconds that a source may take."""
CHECK_EVERY: Final = 1.0
"""Seconds between two looks whether Redis still has the sets."""
OTHERS_WITHIN: Final = 2.0
"""Seconds within which all processes have noticed that Redis has lost a set, and put back what they hold."""
RETRY_AFTER: Final = 1.0
"""Seconds between two attempts to compare with the source and Redis."""
CONTAINS_TIMEOUT: Final = 1.0
"""Seconds that `contains` waits for the first of these attempts."""
_SLACK: Final = 1.0
"""Two processes count the same life from moments that lie this far apart at most; it is no reason to send it again."""
_CHUNK: Final = 500
"""Members that are sent at once."""
_PART: Final = 2000
"""Members that are read or kept at once: more would hold Redis or the event loop."""
_MAX_REMOVALS: Final = 64
_ALL: Final = ""
"""In the recovery queue: whatever this process knows."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class SharedExpiringSet(ExpiringSet, Listener, Recoverable[float]):
    """Made by `CacheManager.expiring_set`; compares itself in the background from `start` to `stop`.

    In the recovery queue an entry is a member and when it leaves, by this process's monotonic clock.
    """

    def __init__(self, name: str, source: Source | None, *, link: RedisLink, backplane: Backplane) -> None:
        self.source = source
        self.topic = f"set:{name}"
        self.key = f"{link.prefix}:set:{name}"
        self._link = link
        self._backplane = backplane
        self._deadlines: dict[str, float] = {}
        self._leaving: list[tuple[float, str]] = []
        self._compared = False
        self._sentinel: bytes | None = None
        self._missed = asyncio.Event()
        self._attempted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        link.recovery.register(self.topic, self)
        backplane.listen(self.topic, self)

    @property
    def live(self) -> bool:
        """Whether it hears of every new member and has compared its own with Redis and the source."""
        return self._compared and self._backplane.live

    async def add(self, *members: str, ttl: float) -> None:
        """Add members: here at once, everywhere as soon as Redis has them."""
        check_ttl(ttl)
        for member in members:
            check_member(member)
        deadline = monotonic() + ttl
        try:
            for part in _batched(members, _PART):
                for member in part:
                    self._keep(member, deadline)
                if len(members) > _PART:
                    await asyncio.sleep(0)
            self.check(await self._publish(dict.fromkeys(members, ttl)))
        except (CacheUnavailable, asyncio.CancelledError) as error:  # cancelled: it may have arrived or not
            if isinstance(error, asyncio.CancelledError):
                for member in members:
                    self._keep(member, deadline)
            for entry in members if len(members) <= _PART else (_ALL,):
                self._link.recovery.add(self.topic, entry, deadline)
            if isinstance(error, asyncio.CancelledError):
                raise

    def __contains__(self, member: object) -> bool:
        return self._deadlines.get(member, 0.0) > monotonic()  # type: ignore[call-overload,no-any-return]  # -- any object may be asked for

    async def contains(self, member: str) -> bool:
        """Tell whether it is a member: from memory while live, from Redis otherwise."""
        if member in self or self.live:
            return member in self
        if self._task is not None and not self._attempted.is_set():
            try:
                async with asyncio.timeout(CONTAINS_TIMEOUT):
                    await self._attempted.wait()
            except TimeoutError:
                self._attempted.set()  # the next ones need not wait too
        try:
            answer = await self._link.run("set_contains", [self.key], [member])
            with reading("set_contains"):
                left = answer / 1000
        except CacheUnavailable:
            return member in self
        self._keep(member, monotonic() + left)
        return member in self

    def on_message(self, body: Any) -> None:  # noqa: ANN401 -- JSON
        """Take members that another process has added."""
        if not isinstance(body, dict) or not all(isinstance(left, int) for left in body.values()):
            raise ValueError("not members of this version")
        now = monotonic()
        for member, left in body.items():
            self._keep(member, now + left / 1000)

    def on_refused_change(self, body: Any) -> None:  # noqa: ANN401 -- as above
        """Take members that Redis has refused, and see to it with all other processes that it gets them."""
        self.on_message(body)
        now = monotonic()
        for member, left in body.items():
            self._link.recovery.add(self.topic, member, now + left / 1000)

    def check(self, sentinel: bytes | None) -> None:
        """Compare the sentinel that Redis has now with the one of the last comparison: another one is another set."""
        if self._sentinel is not None and sentinel != self._sentinel:
            logger.warning("expiring_set_lost", extra={"set": self.topic})
            self.on_gap()

    def on_gap(self) -> None:
        """Trust only what is compared anew."""
        self._compared = False
        self._sentinel = None
        self._attempted.clear()
        self._missed.set()

    def merge(self, old: float, new: float) -> float:
        """Keep the longer life."""
        return max(old, new)

    def overflow(self) -> Mapping[Hashable, float]:
        """Return what stands for all: this process still knows them."""
        return {_ALL: 0.0}

    async def replay(self, entries: Mapping[Hashable, float]) -> None:
        """Send what could not be sent."""
        now = monotonic()
        ttls = self._ttls() if _ALL in entries else {str(member): end - now for member, end in entries.items()}
        await self._publish({member: left for member, left in ttls.items() if left > 0})

    def start(self) -> None:
        """Begin to compare with the source and Redis."""
        self._missed, self._attempted = asyncio.Event(), asyncio.Event()  # this may be another loop than the last time
        self._task = asyncio.create_task(self._stay_compared(), name=f"cache-{self.topic}")

    async def stop(self) -> None:
        """Stop comparing."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        self.on_gap()

    async def _stay_compared(self) -> None:
        while True:
            self._missed.clear()
            young = await self._compare()
            if young is not None and not await self._missed_within(young):
                self._compared = True
                await self._missed.wait()
            elif young is None:
                await self._missed_within(RETRY_AFTER)

    async def _missed_within(self, seconds: float) -> bool:
        """Wait so long, and tell whether something was missed meanwhile: then at once."""
        try:
            async with asyncio.timeout(seconds):
                await self._missed.wait()
        except TimeoutError:
            return False
        return True

    async def _compare(self) -> float | None:
        """Compare with source and Redis; return how long others may still put members back, None when it failed."""
        # The source first: without Redis it is all there is. What is added elsewhere meanwhile is heard.
        read = await self._read_source()
        self._attempted.set()
        try:
            sentinel, age, theirs = await self._read_members()
            young = min(OTHERS_WITHIN, max(0.0, OTHERS_WITHIN - age))
            lacking: dict[str, float] = {}
            for part in _batched(list(self._deadlines.items()), _PART):
                now = monotonic()
                lacking |= {
                    member: deadline - now
                    for member, deadline in part
                    if deadline > now and deadline > theirs.get(member, -inf) + _SLACK
                }
                await asyncio.sleep(0)
            if lacking or (sentinel is None and self._backplane.live):
                sentinel = await self._publish(lacking)
        except CacheUnavailable:
            return None
        if not read or sentinel is None:
            return None
        self._sentinel = sentinel
        return young

    async def _read_members(self) -> tuple[bytes | None, float, dict[str, float]]:
        """Keep what Redis has; return the set's sentinel, its age in seconds, and when each of its members leaves."""
        theirs: dict[str, float] = {}
        sentinel, age, more = None, 0.0, True
        start = 0
        while more:
            answer = await self._link.run("set_members", [self.key], [start, start + _PART - 1])
            now = monotonic()
            with reading("set_members"):
                found, milliseconds, goes_on, *members = answer
                pairs = zip(*[iter(members)] * 2, strict=True)
                part = {member.decode(errors="replace"): now + left / 1000 for member, left in pairs}
                age = milliseconds / 1000
            if start and found != sentinel:
                raise CacheUnavailable("the set was lost while it was read")
            for member, deadline in part.items():
                self._keep(member, deadline)
            theirs |= part
            sentinel, more = found, bool(goes_on)
            start += _PART
        return sentinel, age, theirs

    async def _read_source(self) -> bool:
        if self.source is None:
            return True
        try:
            async with asyncio.timeout(SOURCE_TIMEOUT):
                ttls = ttls_of(await self.source())
        except (
            Exception,
            asyncio.CancelledError,
        ) as error:  # the caller's own code: whatever it raises, it is read again
            if self._task is not None and self._task.cancelling():
                raise
            logger.warning("expiring_set_source_failed", extra={"set": self.topic, "error": type(error).__name__})
            return False
        now = monotonic()
        for member, left in ttls.items():
            self._keep(member, now + left)
        return True

    async def _publish(self, ttls: Mapping[str, float]) -> bytes | None:
        """Put members into Redis and tell the other processes, in one step for each part; return the set's sentinel."""
        entries = iter(ttls.items())
        sentinel = None
        for _ in range(0, max(1, len(ttls)), _CHUNK):  # once without members: the set itself is made
            chunk = {member: max(1, round(left * 1000)) for member, left in islice(entries, _CHUNK)}
            arguments = [secrets.token_hex(8), *(part for entry in chunk.items() for part in entry)]
            message = self._backplane.message(self.topic, chunk)
            sentinel = await self._link.run_and_publish("set_add", [self.key], arguments, message=message)
        return sentinel

    def _ttls(self) -> dict[str, float]:
        now = monotonic()
        return {member: deadline - now for member, deadline in self._deadlines.items() if deadline > now}

    def _keep(self, member: str, deadline: float) -> None:
        if deadline > max(self._deadlines.get(member, 0.0), monotonic()):
            self._deadlines[member] = deadline
            heappush(self._leaving, (deadline, member))
        for late, gone in self._expired():
            if self._deadlines.get(gone) == late:  # not added again since
                del self._deadlines[gone]

    def _expired(self) -> Iterator[tuple[float, str]]:
        now = monotonic()
        for _ in range(_MAX_REMOVALS):  # few at a time, so that no caller pays for many
            if not self._leaving or self._leaving[0][0] > now:
                return
            yield heappop(self._leaving)


def _batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


class ExpiringSets:
    """The sets of a process, by name."""

    def __init__(self, link: RedisLink, backplane: Backplane) -> None:
        self._link = link
        self._backplane = backplane
        self._sets: dict[str, SharedExpiringSet] = {}
        self._running = False
        self._task: asyncio.Task[None] | None = None

    def named(self, name: str, source: Source | None) -> SharedExpiringSet:
        """Return the set of a name, always the same one."""
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
        """Have all sets compare themselves, and look whether Redis still has them."""
        self._running = True
        for made in self._sets.values():
            made.start()
        self._task = asyncio.create_task(self._stay_checked(), name="cache-sets")

    async def stop(self) -> None:
        """Stop comparing."""
        self._running = False
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        for made in self._sets.values():
            await made.stop()

    async def _stay_checked(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            sets = [made for made in self._sets.values() if made.live]
            if not sets:
                continue
            try:
                answer = await self._link.run("set_sentinels", [made.key for made in sets])
                with reading("set_sentinels"):
                    pairs = list(zip(sets, answer, strict=True))
            except CacheUnavailable:
                continue  # the channel or the next look will tell
            for made, sentinel in pairs:
                made.check(sentinel)

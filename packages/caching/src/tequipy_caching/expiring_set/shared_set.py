"""Expiring sets: held in memory by every process, published on the channel, and stored in Redis for later processes."""

import asyncio
import logging
import secrets
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.cache.policies import check_ttl
from tequipy_caching.cache.recovery import Recoverable
from tequipy_caching.expiring_set.members import Members
from tequipy_caching.expiring_set.ports import ExpiringSet, Source, check_member, ttls_of
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.cancellation import cancel_and_wait
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.messages import Listener
from tequipy_caching.redis.scripts import parsing

SOURCE_TIMEOUT: Final = 10.0
"""Seconds after which an attempt to read the source fails."""
OTHERS_WITHIN: Final = 2.0
"""Seconds within which all processes notice that Redis has lost a set, and add their members again."""
RETRY_AFTER: Final = 1.0
"""Seconds between two attempts to compare a set with its source and with Redis."""
CONTAINS_TIMEOUT: Final = 1.0
"""Seconds for which `contains` waits for the first attempt."""
_SLACK: Final = 1.0
"""Seconds by which the expiry of one member may differ between processes without being sent again."""
_CHUNK: Final = 500
"""Members that are sent in one script."""
_PART: Final = 2000
"""Members that are read or added in one step: more would block Redis or the event loop."""
_ALL: Final = ""
"""The entry of the recovery queue that represents all members that this process knows."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class SharedExpiringSet(ExpiringSet, Listener, Recoverable[float]):
    """Returned by `CacheManager.expiring_set`. Compares itself with Redis in the background, from `start` to `stop`.

    An entry of the recovery queue is a member and its expiry, by this process's monotonic clock.
    """

    def __init__(self, name: str, source: Source | None, *, link: RedisLink, backplane: Backplane) -> None:
        self.source = source
        self.topic = f"set:{name}"
        self.key = f"{link.prefix}:set:{name}"
        self._link = link
        self._backplane = backplane
        self._members = Members()
        self._compared = False
        """Whether the last comparison has succeeded, and nothing may have been missed since."""
        self._sentinel: bytes | None = None
        """The sentinel in Redis at the last comparison."""
        self._missed = asyncio.Event()
        """Set when messages may have been missed, so that the set must be compared again."""
        self._attempted = asyncio.Event()
        """Set when the source has been read or could not be read, so that `contains` need not wait for it."""
        self._unanswered = False
        """Whether Redis has not answered `contains_any`, or may have lacked a member, since the source was read."""
        self._task: asyncio.Task[None] | None = None
        link.recovery.register(self.topic, self)
        backplane.listen(self.topic, self)

    @property
    def live(self) -> bool:
        """Whether this set receives every new member, and has been compared with Redis and the source."""
        return self._compared and monotonic() < self._backplane.live_until  # `Backplane.live`, without its call

    async def add(self, *members: str, ttl: float) -> None:
        """Add members: in this process at once, in the others as soon as Redis has them."""
        check_ttl(ttl)
        for member in members:
            check_member(member)
        deadline = monotonic() + ttl
        try:
            for part in _batched(members, _PART):
                for member in part:
                    self._members.add(member, deadline)
                if len(members) > _PART:
                    await asyncio.sleep(0)
            self.check(await self._publish(dict.fromkeys(members, ttl)))
        except (CacheUnavailable, asyncio.CancelledError) as error:  # a cancelled request may have been executed or not
            if isinstance(error, asyncio.CancelledError):
                for member in members:  # the loop above may not have reached all of them
                    self._members.add(member, deadline)
            for entry in members if len(members) <= _PART else (_ALL,):
                self._link.recovery.add(self.topic, entry, deadline)
            if isinstance(error, asyncio.CancelledError):
                raise

    def __contains__(self, member: object) -> bool:
        return member in self._members

    async def contains_any(self, members: Collection[str]) -> bool:
        """Return whether one of these is a member: from memory while live, from Redis otherwise."""
        known = self._members.has_any(members)
        if known or self.live:
            return known
        if self._task is not None and not self._attempted.is_set():
            try:
                async with asyncio.timeout(CONTAINS_TIMEOUT):
                    await self._attempted.wait()
            except TimeoutError:
                self._attempted.set()  # later calls do not wait again
        try:
            answer = await self._link.run("set_contains", [self.key], tuple(members))
            with parsing("set_contains"):
                ttls = [(member, left / 1000) for member, left in zip(members, answer, strict=True)]
        except CacheUnavailable:
            self._unanswered = True
            return self._members.has_any(members)
        now = monotonic()
        for member, left in ttls:
            self._members.add(member, now + left)
        self._unanswered = self._unanswered or self._link.writes.refusal is not None
        return self._members.has_any(members)

    def on_message(self, body: Any) -> None:  # noqa: ANN401 -- JSON
        """Add the members that another process has added."""
        if not isinstance(body, dict) or not all(isinstance(left, int) for left in body.values()):
            raise ValueError("not members of this version")
        now = monotonic()
        for member, left in body.items():
            self._members.add(member, now + left / 1000)

    def on_refused_change(self, body: Any) -> None:  # noqa: ANN401 -- as above
        """Add members whose addition Redis refused, and queue them: every process replays them until Redis has them."""
        self.on_message(body)
        now = monotonic()
        for member, left in body.items():
            self._link.recovery.add(self.topic, member, now + left / 1000)

    def check(self, sentinel: bytes | None) -> None:
        """Compare the sentinel in Redis with that of the last comparison; if it differs, Redis has lost the set."""
        if self._sentinel is not None and sentinel != self._sentinel:
            logger.warning("expiring_set_lost", extra={"set": self.topic})
            self.on_gap()

    def on_gap(self) -> None:
        """Stop being live until the set has been compared again."""
        self._compared = False
        self._sentinel = None
        self._attempted.clear()
        self._missed.set()

    def merge(self, old: float, new: float) -> float:
        """Return the later expiry."""
        return max(old, new)

    def overflow(self) -> Mapping[Hashable, float]:
        """Return the entry that represents all members, because this process still knows them."""
        return {_ALL: 0.0}

    async def replay(self, entries: Mapping[Hashable, float]) -> None:
        """Send members that could not be sent before."""
        now = monotonic()
        ttls = self._members.ttls() if _ALL in entries else {str(member): end - now for member, end in entries.items()}
        await self._publish({member: left for member, left in ttls.items() if left > 0})

    def start(self) -> None:
        """Start to compare the set with its source and with Redis."""
        self._missed, self._attempted = asyncio.Event(), asyncio.Event()  # new, for another event loop
        self._task = asyncio.create_task(self._stay_compared(), name=f"cache-{self.topic}")

    async def stop(self) -> None:
        """Stop comparing."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        self.on_gap()

    async def _stay_compared(self) -> None:
        """Compare the set until that succeeds, and again whenever something may have been missed."""
        while True:
            self._missed.clear()
            incomplete_for = await self._compare()
            if incomplete_for is None:
                await self._missed_within(RETRY_AFTER)
            elif not await self._missed_within(incomplete_for):
                self._compared = True
                while not await self._missed_within(RETRY_AFTER):
                    if self._unanswered:  # others may add members that this process receives neither way
                        await self._read_source()

    async def _missed_within(self, seconds: float) -> bool:
        """Return True as soon as messages may have been missed, or False after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._missed.wait()
        except TimeoutError:
            return False
        return True

    async def _compare(self) -> float | None:
        """Compare the members with the source and with Redis, and add to each what it lacks.

        Returns for how many seconds the set in Redis may be incomplete, because it is new and other processes still add
        their members; None if the comparison has failed.
        """
        # The source is read first, because nothing else is available while Redis is unreachable. Members that are added
        # meanwhile arrive as messages.
        source_read = await self._read_source()
        self._attempted.set()
        try:
            sentinel, age, theirs = await self._read_members()
            lacking: dict[str, float] = {}
            for part in _batched(self._members.expiries(), _PART):
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
        if not source_read or sentinel is None:
            return None
        self._sentinel = sentinel
        return min(OTHERS_WITHIN, max(0.0, OTHERS_WITHIN - age))

    async def _read_members(self) -> tuple[bytes | None, float, dict[str, float]]:
        """Add the members in Redis; return the set's sentinel, its age in seconds, and the expiry of each member."""
        theirs: dict[str, float] = {}
        sentinel, age, more = None, 0.0, True
        start = 0
        while more:
            answer = await self._link.run("set_members", [self.key], [start, start + _PART - 1])
            now = monotonic()
            with parsing("set_members"):
                found, milliseconds, goes_on, *members = answer
                pairs = zip(*[iter(members)] * 2, strict=True)
                part = {member.decode(errors="replace"): now + left / 1000 for member, left in pairs}
                age = milliseconds / 1000
            if start and found != sentinel:
                raise CacheUnavailable("the set was lost while it was read")
            for member, deadline in part.items():
                self._members.add(member, deadline)
            theirs |= part
            sentinel, more = found, bool(goes_on)
            start += _PART
        return sentinel, age, theirs

    async def _read_source(self) -> bool:
        """Add the members of the source; return whether it could be read."""
        self._unanswered = False
        if self.source is None:
            return True
        try:
            async with asyncio.timeout(SOURCE_TIMEOUT):
                ttls = ttls_of(await self.source())
        # The source is the caller's code: after any exception it is read again.
        except (Exception, asyncio.CancelledError) as error:
            if self._task is not None and self._task.cancelling():
                raise
            logger.warning("expiring_set_source_failed", extra={"set": self.topic, "error": type(error).__name__})
            return False
        now = monotonic()
        for member, left in ttls.items():
            self._members.add(member, now + left)
        return True

    async def _publish(self, ttls: Mapping[str, float]) -> bytes | None:
        """Add members in Redis and publish them, in one step for each chunk; return the set's sentinel."""
        entries = iter(ttls.items())
        sentinel = None
        for _ in range(0, max(1, len(ttls)), _CHUNK):  # once even without members, to create the set
            chunk = {member: max(1, round(left * 1000)) for member, left in islice(entries, _CHUNK)}
            arguments = [secrets.token_hex(8), *(part for entry in chunk.items() for part in entry)]
            message = self._backplane.message(self.topic, chunk)
            sentinel = await self._link.run_and_publish("set_add", [self.key], arguments, message=message)
        return sentinel


def _batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

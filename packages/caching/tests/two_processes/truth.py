"""The results that each process may get, by the table of how long an invalidated value may be seen.

A version of a key is invalid from the return of the first change that covers it. Moments are the numbers of the steps,
times are seconds of the simulated clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from .world import PREFIX, Process, World

NOTICED_WITHIN: Final = 2.0
"""Seconds after which a process believes no channel that is silent."""
LOAD_SLACK: Final = 2.0
"""Seconds that may pass between a factory's end and the storing of its value."""
_SET_KEY: Final = f"{PREFIX}:set:revoked".encode()


class Point(NamedTuple):
    """A moment and its time."""

    moment: int
    time: float


NEVER: Final = Point(2**62, inf)
LONG_AGO: Final = Point(-1, -inf)


@dataclass(eq=False)
class Change:
    """An invalidation of a key's versions below one, or an addition of a member to the set."""

    process: Process
    name: str
    below: int
    pending: Callable[[], bool]
    """Whether it waits in the queue of its process."""
    returned: Point = NEVER
    shared: Point = NEVER
    """From when others must learn of it: Redis has it, or has refused it and was there to spread it."""
    holders: frozenset[Process] = frozenset()
    """The processes that learned of it although Redis refused it, and keep it in their queues."""
    replayed: bool = False
    """Whether one of them has sent it to Redis."""
    missing: Point = NEVER
    """Of a member: since when Redis has lost it."""


@dataclass
class Standing:
    """The known state of a process."""

    away: Point
    """When it last could not reach Redis, by the world or by its own breaker."""
    hindered: Point
    """When it last stood still, was held up, or could not reach Redis or its channel, so that it puts nothing back."""
    started: Point
    """When it started."""
    blocked: Point = LONG_AGO
    """When it last stood still, was held up, or could not reach Redis, so that it replays nothing."""
    joined: Point = NEVER
    """Since when its channel has been joined without a break."""
    caught_up: Point = LONG_AGO
    """When it has last read everything that was told."""


class BrokenPromiseError(AssertionError):
    """Raised when the caches break a promise."""


class Truth:
    """The log of all versions, and the checks of all reads."""

    def __init__(self, world: World) -> None:
        self.versions: dict[str, int] = {}
        self.broken = False
        self._world = world
        self._moment = 0
        self._changes: list[Change] = []
        self._standings: dict[Process, Standing] = {}
        self._accepting = LONG_AGO
        """When Redis last accepted writes."""
        self._made: list[tuple[float, float]] = []
        """Of each value when it was made, and how long it may live."""

    @property
    def now(self) -> Point:
        return Point(self._moment, self._world.now)

    def follow(self, process: Process) -> None:
        """Record the state of a process from now on."""
        self._standings[process] = Standing(self.now, self.now, self.now)

    def forget(self, process: Process) -> None:
        """Stop recording a process that was killed."""
        del self._standings[process]

    def value(self, key: str, version: int, ttl: float) -> str:
        """Return a value with its version and a unique number."""
        self._made.append((self._world.now, ttl))
        return f"{key} {version} {len(self._made) - 1}"

    def note_return(self, change: Change, began: Point) -> None:
        """Record that a change has returned."""
        process = change.process
        change.returned = self.now
        if self._standings[process].away.moment < began.moment and not process.link.breaker.open:
            change.shared = self.now
        if change.pending():
            subscribed = self._world.network.is_subscribed
            change.holders = frozenset(each for each in self._standings if each is process or subscribed(each))
        self._changes.append(change)

    def observe(self) -> None:
        """Record the current state of all processes and of Redis."""
        if self._world.server.refusal is None:
            self._accepting = self.now
        for process, standing in self._standings.items():
            self._observe(process, standing)
        stored = self._world.server.databases.get(0, {}).get(_SET_KEY)
        for change in self._changes:
            change.replayed |= any(not each.ended and not len(each.recovery) for each in change.holders)
            if change.name not in self.versions:
                if stored is None or change.name.encode() not in stored.value:
                    change.missing = min(change.missing, self.now)
                elif change.missing is not NEVER:
                    change.missing, change.shared = NEVER, self.now

    def next_moment(self) -> None:
        """Start a new step."""
        for change in self._changes:
            if change.shared is NEVER and not change.process.ended and not change.pending():
                change.shared = self.now
        self._moment += 1
        self.observe()

    def require(self, kept: bool, promise: str) -> None:
        """Raise `BrokenPromiseError` unless a promise is kept."""
        if not kept:
            self.broken = True
            raise BrokenPromiseError(promise)

    def check(self, reader: Process, key: str, value: str, began: Point) -> None:
        """Check that a read that began at a moment may return a value now."""
        its_key, version, number = value.split()
        self.require(its_key == key, f"{value!r} was read under {key!r}")
        made, ttl = self._made[int(number)]
        fresh = began.time <= made + ttl + LOAD_SLACK
        self.require(fresh, f"{value!r} was read {began.time - made:g} s after it was made, its ttl is {ttl:g} s")
        for change in self._changes:
            if change.name == key and int(version) < change.below:
                self.require(
                    self._may_read(reader, change, began),
                    f"process {reader.number} read {value!r}, invalidated by process {change.process.number}"
                    f" {began.time - change.returned.time:g} s before",
                )

    def check_member(self, reader: Process, member: str) -> None:
        """Check that a live set may lack a member."""
        for change in self._changes:
            if change.name == member:
                self.require(
                    self._may_lack(reader, change),
                    f"process {reader.number} is live without {member!r}, added by process {change.process.number}"
                    f" {self.now.time - change.returned.time:g} s before",
                )

    def _observe(self, process: Process, standing: Standing) -> None:
        network = self._world.network
        if network.down or network.mute or process.isolated or process.link.breaker.open:
            standing.away = standing.hindered = standing.blocked = self.now
        if process.held or not process.running:
            standing.blocked = self.now
        if not (process.backplane.live and network.is_subscribed(process)):
            standing.joined = NEVER
        elif standing.joined is NEVER:
            standing.joined = self.now
        if process.running and network.channel_is_empty(process):
            standing.caught_up = self.now
        refused = self._world.server.refusal is not None
        if refused or process.held or not process.running or not process.is_well:
            standing.hindered = self.now

    def _may_read(self, reader: Process, change: Change, began: Point) -> bool:
        if change.returned.moment >= began.moment:
            return True
        if change.process is reader:
            return False
        standing = self._standings[reader]
        if self._is_withheld(change, reader):
            return True
        if change.shared.moment >= began.moment or standing.away.moment >= began.moment:
            return True
        return not self._must_know(standing, change, began)

    def _may_lack(self, reader: Process, change: Change) -> bool:
        if change.returned.moment >= self._moment:
            return True
        if change.process is reader:
            return False
        if change.missing is not NEVER and not self._is_put_back(change, reader):
            return True
        return change.shared.moment >= self._moment or not self._must_know(self._standings[reader], change, self.now)

    def _is_put_back(self, change: Change, reader: Process) -> bool:
        """Return whether a process holds a member that Redis has lost, and nothing prevents it from adding it again."""
        holders = [each for each in self._standings if change.name in each.revoked and each is not reader]
        since = change.missing.time - NOTICED_WITHIN
        return bool(holders) and all(self._standings[each].hindered.time < since for each in holders)

    def _is_withheld(self, change: Change, reader: Process) -> bool:
        """Return whether all processes that know of a refused change are gone, or cannot replay it.

        A reader that joined later cannot know of it, and may keep what it read while Redis accepted writes. A reader
        that only knows a Redis that refuses writes must not trust it.
        """
        if not change.holders or change.replayed or reader in change.holders:
            return False
        both = max(change.returned.moment, self._standings[reader].started.moment)
        if self._world.server.refusal is not None and self._accepting.moment < both:
            return False
        since = self.now.time - NOTICED_WITHIN
        return all(each.ended or self._standings[each].blocked.time >= since for each in change.holders)

    @staticmethod
    def _must_know(standing: Standing, change: Change, at: Point) -> bool:
        # A process that joins the channel after a message compares positions, and so detects the change.
        told = standing.joined.moment <= at.moment and change.shared.moment <= standing.caught_up.moment
        return told or at.time >= change.shared.time + NOTICED_WITHIN

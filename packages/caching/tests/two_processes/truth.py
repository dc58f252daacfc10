"""Checks each result of a read against the promised limits of how long an invalidated value may be returned.

A version of a key is invalid from the return of the first change that covers it. Moments are the numbers of the steps,
times are seconds of the simulated clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from .world import PREFIX, Process, World

NOTICED_WITHIN: Final = 2.0
"""Seconds without a message after which a process treats its channel as disconnected."""
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
    """Return whether it is in the recovery queue of its process."""
    returned: Point = NEVER
    shared: Point = NEVER
    """From when others must receive it: Redis has executed it, or has refused it but could publish it, or its process
    could have replayed it."""
    holders: frozenset[Process] = frozenset()
    """The processes that received it although Redis refused it, and keep it in their recovery queues."""
    replayed: Point = NEVER
    """When one of them has sent it to Redis."""
    missing: Point = NEVER
    """Only for a member: since when Redis does not have it any more."""


class Read(NamedTuple):
    """A read, as it begins to run; a suspended process runs it when it goes on."""

    process: Process
    began: Point
    """When it was called."""
    connected: bool
    """Whether the process counts as connected to the channel."""
    caught_up: Point
    """When the process last had read all messages of the channel."""


@dataclass
class ProcessHistory:
    """When a process last could not do what a promise requires of it, and what it has received."""

    unreachable: Point
    """When it last could not reach Redis, because of the network or of its own open circuit breaker."""
    unable_to_restore: Point
    """When it last was suspended or delayed, or could not reach Redis or its channel. It adds no lost members then."""
    started: Point
    """When it started."""
    delayed: Point = LONG_AGO
    """When it last was suspended or delayed. A change that it makes then may neither be executed nor be refused."""
    unable_to_replay: Point = LONG_AGO
    """When it last was suspended or delayed, or Redis was unreachable or refused deletes. It replays no pending changes
    then."""
    joined: Point = NEVER
    """Since when its channel has been connected without interruption."""
    caught_up: Point = LONG_AGO
    """When it last had read all messages of the channel."""


class BrokenPromiseError(AssertionError):
    """Raised when the caches break a promise."""


class Truth:
    """Records all versions, changes and process states, and checks all reads against them."""

    def __init__(self, world: World) -> None:
        self.versions: dict[str, int] = {}
        self.broken = False
        self._world = world
        self._moment = 0
        self._changes: list[Change] = []
        self._histories: dict[Process, ProcessHistory] = {}
        self._accepting = LONG_AGO
        """When Redis last accepted writes."""
        self._made: list[tuple[float, float]] = []
        """The creation time and the ttl of each value."""

    @property
    def now(self) -> Point:
        return Point(self._moment, self._world.now)

    def follow(self, process: Process) -> None:
        """Record the state of a process from now on."""
        self._histories[process] = ProcessHistory(self.now, self.now, self.now)

    def forget(self, process: Process) -> None:
        """Stop recording a process that was killed."""
        del self._histories[process]

    def value(self, key: str, version: int, ttl: float) -> str:
        """Return a value with its version and a unique number."""
        self._made.append((self._world.now, ttl))
        return f"{key} {version} {len(self._made) - 1}"

    def note_return(self, change: Change, began: Point) -> None:
        """Record that a change has returned."""
        process = change.process
        change.returned = self.now
        history = self._histories[process]
        refused = process.link.writes.refusal is not None and history.delayed.moment < began.moment
        reachable = history.unreachable.moment < began.moment and not process.link.breaker.open
        if reachable and (refused or not change.pending()):
            change.shared = self.now
        if change.pending():
            subscribed = self._world.network.is_subscribed
            change.holders = frozenset(each for each in self._histories if each is process or subscribed(each))
        self._changes.append(change)

    def observe(self) -> None:
        """Record the current state of all processes and of Redis."""
        if self._world.server.refusal is None:
            self._accepting = self.now
        for process, history in self._histories.items():
            self._observe(process, history)
        stored = self._world.server.databases.get(0, {}).get(_SET_KEY)
        for change in self._changes:
            if any(not each.ended and not len(each.recovery) for each in change.holders):
                change.replayed = min(change.replayed, self.now)
            if change.name not in self.versions:
                if stored is None or change.name.encode() not in stored.value:
                    change.missing = min(change.missing, self.now)
                elif change.missing is not NEVER:
                    change.missing, change.shared = NEVER, self.now

    def next_moment(self) -> None:
        """Start a new step."""
        for change in self._changes:
            if change.shared is NEVER and not change.process.ended and not self._may_be_pending(change):
                change.shared = self.now
        self._moment += 1
        self.observe()

    def require(self, kept: bool, promise: str) -> None:
        """Raise `BrokenPromiseError` unless a promise is kept."""
        if not kept:
            self.broken = True
            raise BrokenPromiseError(promise)

    def begin_read(self, process: Process, began: Point) -> Read:
        """Return a read that begins to run."""
        return Read(process, began, process.backplane.live, self._histories[process].caught_up)

    def check(self, read: Read, key: str, value: str) -> None:
        """Check that a read may return a value now."""
        began = read.began
        its_key, version, number = value.split()
        self.require(its_key == key, f"{value!r} was read under {key!r}")
        made, ttl = self._made[int(number)]
        fresh = began.time <= made + ttl + LOAD_SLACK
        self.require(fresh, f"{value!r} was read {began.time - made:g} s after it was made, its ttl is {ttl:g} s")
        for change in self._changes:
            if change.name == key and int(version) < change.below:
                self.require(
                    self._may_read(read, change),
                    f"process {read.process.number} read {value!r}, invalidated by process {change.process.number}"
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

    def _observe(self, process: Process, history: ProcessHistory) -> None:
        network = self._world.network
        if network.down or network.mute or process.isolated or process.link.breaker.open:
            history.unreachable = history.unable_to_restore = history.unable_to_replay = self.now
        refusal = self._world.server.refusal
        if process.held or not process.running:
            history.delayed = history.unable_to_replay = self.now
        if refusal not in {None, "OOM"}:  # out of memory, deletes are accepted
            history.unable_to_replay = self.now
        if not (process.backplane.live and network.is_subscribed(process)):
            history.joined = NEVER
        elif history.joined is NEVER:
            history.joined = self.now
        if process.running and network.channel_is_empty(process):
            history.caught_up = self.now
        if refusal is not None or process.held or not process.running or not process.is_well:
            history.unable_to_restore = self.now

    def _may_be_pending(self, change: Change) -> bool:
        """Return whether a change is in the recovery queue of its process, which has not had the time to replay it."""
        able_since = max(change.returned.time, self._histories[change.process].unable_to_replay.time)
        return change.pending() and self.now.time - NOTICED_WITHIN <= able_since

    def _may_read(self, read: Read, change: Change) -> bool:
        reader, began = read.process, read.began
        if change.returned.moment >= began.moment:
            return True
        if change.process is reader:
            return False
        history = self._histories[reader]
        if self._is_withheld(change, read):
            return True
        if change.shared.moment >= began.moment or history.unreachable.moment >= began.moment:
            return True
        # A process that knows that it is disconnected asks Redis.
        return read.connected and not self._must_know(history.joined, read.caught_up, change, began)

    def _may_lack(self, reader: Process, change: Change) -> bool:
        if change.returned.moment >= self._moment:
            return True
        if change.process is reader:
            return False
        if change.missing is not NEVER and not self._is_restored(change, reader):
            return True
        history = self._histories[reader]
        must_know = self._must_know(history.joined, history.caught_up, change, self.now)
        return change.shared.moment >= self._moment or not must_know

    def _is_restored(self, change: Change, reader: Process) -> bool:
        """Return whether a process holds a member that Redis has lost, and nothing prevents it from adding it again."""
        holders = [each for each in self._histories if change.name in each.revoked and each is not reader]
        since = change.missing.time - NOTICED_WITHIN
        return bool(holders) and all(self._histories[each].unable_to_restore.time < since for each in holders)

    def _is_withheld(self, change: Change, read: Read) -> bool:
        """Return whether all processes that know of a refused change were gone, or could not replay it before a read.

        A reader that has not received it cannot know of it once Redis accepts writes again. If it is connected, it may
        keep what it read then. A reader that only knows a Redis that refuses writes must not trust it; a disconnected
        one asks Redis in each read.
        """
        reader, began = read.process, read.began
        if not change.holders or change.replayed.moment < began.moment or reader in change.holders:
            return False
        both = max(change.returned.moment, self._histories[reader].started.moment)
        known_since = both if read.connected else began.moment
        if self._world.server.refusal is not None and self._accepting.moment < known_since:
            return False
        since = began.time - NOTICED_WITHIN
        return all(each.ended or self._histories[each].unable_to_replay.time >= since for each in change.holders)

    @staticmethod
    def _must_know(joined: Point, caught_up: Point, change: Change, at: Point) -> bool:
        # A process that joins the channel after a message compares positions, and so detects the change.
        received = joined.moment <= at.moment and change.shared.moment <= caught_up.moment
        return received or at.time >= change.shared.time + NOTICED_WITHIN

"""A hypothesis state machine over two processes, Redis, the channel and the clock."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tequipy_caching.cache.keys import Key

from .history import FOREIGN, KEYS, FactoryFailedError, History, Load
from .truth import Change
from .world import POLICY, Process

TAG: Final = "team"
TAGS: Final[dict[str, tuple[str, ...]]] = {"a": (TAG,), "b": ()}
FOREIGNER: Final = 2
BRIEF: Final = 5.0

WHICH = st.integers(0, 1)
NAMES = st.sampled_from(KEYS)
PROCESS_FAULTS: Final = ("is suspended", "is held up", "is isolated", "is cut", "is silently cut")
REDIS_FAULTS: Final = ("READONLY", "MISCONF", "NOREPLICAS", "OOM", "NOPERM", "down", "mute")
LOSSES: Final = {"values": b":cache:", "the set": b":set:", "tags": b":tag:", "the channel's state": b":state"}
"""What Redis may lose: values may be tombstones or marks, too; all of them or one."""


RULES: Final = (
    *("load", "load_all", "finish_load", "read", "write", "add_member"),
    *("disturb_process", "disturb_redis", "mend", "arrive", "lose", "wait"),
)


class TwoProcesses(History):
    """In any order of steps, no process reads a value that has been invalid for longer than the table allows."""

    @initialize(
        most=st.integers(1, 2),
        fault=st.sampled_from([None, None, *PROCESS_FAULTS]),
        under_way=st.lists(WHICH, max_size=2),
    )
    def begin(self, most: int, fault: str | None, under_way: list[int]) -> None:
        """Start with all keys and a member in both processes, and possibly with a fault and running loads.

        There are at most `most` faults at the same time.
        """
        self.start()
        self.most = most
        self.foreigner: Process | None = None
        self.add_member(0)
        self.read(0, loading=True)
        self.read(1, loading=True)
        self.wait(3.0)
        if fault is not None:
            self.disturb_process(1, fault)
        for which in under_way:
            self.lose("values", 0)
            for process in self.processes:
                process.cache._memory.drop("b")  # type: ignore[attr-defined]  # -- as below
            self.load(which, "b", brief=False)

    @rule(which=WHICH, key=NAMES, brief=st.booleans())
    def load(self, which: int, key: str, *, brief: bool) -> None:
        """Read a key, and start to load it if it is missing."""
        process, ttl = self.processes[which], BRIEF if brief else POLICY.ttl

        async def factory() -> str:
            version = self.truth.versions[key]
            load = Load(process, process.loop.create_future())
            self.loads.append(load)
            if not await load.done:
                raise FactoryFailedError
            return self.truth.value(key, version, ttl)

        self.begin_read(process, key, lambda: process.cache.get_or_set(key, factory, ttl, TAGS[key]))

    @rule(which=WHICH)
    def load_all(self, which: int) -> None:
        """Read all keys at once, and start one load of those that are missing."""
        process = self.processes[which]

        async def factory(keys: Sequence[Key]) -> Mapping[Key, str]:
            versions = dict(self.truth.versions)
            load = Load(process, process.loop.create_future())
            self.loads.append(load)
            if not await load.done:
                raise FactoryFailedError
            return {key: self.truth.value(str(key), versions[str(key)], POLICY.ttl) for key in keys}

        async def read() -> Mapping[str, str]:
            found = await process.cache.get_or_set_many(KEYS, factory, tags=[TAG])
            return {str(key): value for key, value in found.items()}

        self.begin_read_many(process, read)

    @precondition(lambda self: self.loads)
    @rule(which=st.integers(0, 5), well=st.sampled_from([True, True, True, False]))
    def finish_load(self, which: int, *, well: bool) -> None:
        """Let a factory return or fail."""
        self.finish(self.loads.pop(which % len(self.loads)), well=well)

    @rule(which=WHICH, loading=st.sampled_from([True, True, False]))
    def read(self, which: int, *, loading: bool) -> None:
        """Read all keys; with `loading`, load missing ones at once."""
        process = self.processes[which]
        for key in KEYS:

            async def factory(key: str = key) -> str:
                return self.truth.value(key, self.truth.versions[key], POLICY.ttl)

            get = partial(process.cache.get, key)
            load = partial(process.cache.get_or_set, key, factory, tags=TAGS[key])
            self.begin_read(process, key, load if loading else get)

    @rule(which=WHICH, key=NAMES, kind=st.sampled_from(["delete", "set", "expire", "tag", "clear"]))
    def write(self, which: int, key: str, kind: str) -> None:
        """Commit a new version and invalidate the old one; a key has one writer at a time, as in a database."""
        process, names = self.processes[which], [key]
        if kind in {"tag", "clear"}:
            names = [name for name in KEYS if kind == "clear" or TAG in TAGS[name]]
        names = [name for name in names if name not in self.writing]
        if not names:
            return
        for name in names:
            self.truth.versions[name] += 1
        self.writing.update(names)
        below = dict(self.truth.versions)
        changes: dict[str, Callable[[], Awaitable[None]]] = {
            "delete": partial(process.cache.delete, key),
            "set": partial(process.cache.set, key, self.truth.value(key, below[key], POLICY.ttl), tags=TAGS[key]),
            "expire": partial(process.cache.expire, key),
            "tag": partial(process.cache.delete_by_tag, TAG),
            "clear": process.cache.clear,
        }

        def pending() -> bool:
            return len(process.recovery) > 0

        self.begin_change([Change(process, name, below[name], pending) for name in names], changes[kind])

    @rule(which=st.integers(0, FOREIGNER))
    def add_member(self, which: int) -> None:
        """Add a member to the set. The third process uses another database of the same server."""
        if which == FOREIGNER:
            self._add_elsewhere()
            return
        process, member = self.processes[which], f"member {len(self.members)}"
        self.members.add(member)

        def pending() -> bool:
            return len(process.recovery) > 0

        self.begin_change([Change(process, member, 1, pending)], partial(process.revoked.add, member, ttl=3600))

    def _add_elsewhere(self) -> None:
        if self.foreigner is None:
            self.foreigner = self.world.start(FOREIGNER, database=1)
            self.world.settle()
        self.foreigner.spawn(self.foreigner.revoked.add(FOREIGN, ttl=3600))
        self.go_on()

    @precondition(lambda self: len(self.faults) < self.most)
    @rule(which=WHICH, how=st.sampled_from(PROCESS_FAULTS))
    def disturb_process(self, which: int, how: str) -> None:
        """Suspend a process, hold up its requests and responses, disconnect it from Redis, or cut its channel."""
        process, network = self.processes[which], self.world.network
        match how:
            case "is suspended":
                process.running = False
            case "is held up":
                process.held = True
            case "is isolated":
                process.isolated = True
                network.reset(network.wires_of(process))
            case "is cut":
                process.channel_cut = True
                network.reset(network.wires_of(process, channel=True))
            case _:
                process.channel_cut = True
                for wire in network.wires_of(process, channel=True):
                    network.silence(wire)

        def mend() -> None:
            process.running, process.held, process.isolated, process.channel_cut = True, False, False, False

        self.disturbed(mend)

    @precondition(lambda self: len(self.faults) < self.most)
    @rule(how=st.sampled_from(REDIS_FAULTS))
    def disturb_redis(self, how: Any) -> None:
        """Make Redis refuse writes, kill it, or suspend it."""
        network, server = self.world.network, self.world.server
        match how:
            case "down":
                network.down = True
                network.reset(list(network.wires))
            case "mute":
                network.mute = True
            case _:
                server.refusal = how

        def mend() -> None:
            if network.down:
                self.world.restart_server(server.snapshot())
            network.down = network.mute = False
            server.refusal = None

        self.disturbed(mend)

    @precondition(lambda self: self.faults)
    @rule(which=WHICH)
    def mend(self, which: int) -> None:
        """End a fault."""
        self.faults.pop(which % len(self.faults))()
        self.go_on()

    @precondition(lambda self: not self.world.network.mute and any(map(self.world.network.held, self.processes)))
    @rule(number=st.integers(0, 3))
    def arrive(self, number: int) -> None:
        """Let a request or response that is held up arrive."""
        running = [process for process in self.processes if process.running]
        held = [segment for process in running for segment in self.world.network.held(process)]
        if held:
            self.world.network.arrive(held[number % len(held)])
        self.go_on()

    @rule(
        what=st.sampled_from(["a process", *LOSSES, "values", "values", "memory", "the last steps"]),
        which=st.integers(0, 5),
    )
    def lose(self, what: str, which: int) -> None:
        """Lose a process's L1, the process, keys in Redis, or the last changes in Redis by a restart."""
        number = which % 2
        match what:
            case "memory":
                for key in KEYS:
                    self.processes[number].cache._memory.drop(key)  # type: ignore[attr-defined]  # -- what its store does
            case "a process":
                self._start_again(number)
            case "the last steps":
                self.world.restart_server(self.snapshots[-which - 1 :][0])
            case _:
                keys = [key for key in self.world.server.names() if LOSSES[what] in key]
                for name in keys if which < 3 else keys[which % 3 :][:1]:
                    del self.world.server.databases[0][name]
        self.go_on()

    def _start_again(self, number: int) -> None:
        old = self.processes[number]
        self.loads = [load for load in self.loads if load.process is not old]
        self.world.end(old)
        self.truth.forget(old)
        self.processes[number] = self.start_process(number)

    @rule(seconds=st.sampled_from([3.0, 0.3, 1.0] * 3 + [40.0]))
    def wait(self, seconds: float) -> None:
        """Advance the clock."""
        self.go_on(seconds)

    @invariant()
    def memory_is_right(self) -> None:
        """Check what must be true after each step."""
        if hasattr(self, "processes"):
            self.check_memory()


def with_rules(*names: str) -> type[TwoProcesses]:
    """Return the machine with these rules only, to shorten a search for long histories of few kinds of steps."""

    class Focused(TwoProcesses):
        histories = steps = 0

    def as_method(rule_: Callable[..., None]) -> Callable[..., None]:
        def method(self: TwoProcesses, *arguments: Any, **options: Any) -> None:
            rule_(self, *arguments, **options)

        return method

    for name in RULES:
        if name not in names:
            setattr(Focused, name, as_method(getattr(TwoProcesses, name)))
    return Focused

"""Event loops whose clock the test sets, and connections to the model of Redis that the test can hold up."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from hiredis import Reader

from .redis_commands import Status
from .redis_model import ErrorReply, RedisModel, Session

_SLACK: Final = 1e-9
"""Seconds: a timer so close is due."""


class _IdleSelector(selectors.SelectSelector):
    """A selector without input that stops the loop's run when only a timer could continue it."""

    loop: "SimulatedLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return at once."""
        if timeout is None or timeout > _SLACK:
            self.loop.wakes_at = inf if timeout is None else self.loop.time() + timeout
            self.loop.stop()
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """The event loop of one process. `run_due` runs it until nothing is due at the current time."""

    def __init__(self, clock: Callable[[], float], network: "Network", owner: Any) -> None:
        self._simulated_clock = clock
        selector = _IdleSelector()
        selector.loop = self
        super().__init__(selector)
        self.wakes_at = inf
        """When its next timer is due."""
        self._network = network
        self._owner = owner

    def run_due(self) -> None:
        """Run until only time or the network could continue."""
        if self._ready or self.wakes_at <= self.time() + _SLACK:  # type: ignore[attr-defined]  # -- to start it in vain is slow
            self.run_forever()

    def time(self) -> float:
        """Return the simulated time."""
        return self._simulated_clock()

    async def create_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        """Connect to the model of Redis, for any address."""
        self._network.check_reachable(self._owner)
        wire = Wire(self._network, self._owner, protocol_factory())
        wire.protocol.connection_made(wire)
        return wire, wire.protocol


class Wire(asyncio.Transport):
    """The client's end of a connection."""

    def __init__(self, network: "Network", owner: Any, protocol: Any) -> None:
        super().__init__()
        self.owner = owner
        self.protocol = protocol
        self.session = Session(lambda reply: network.send_to_client(self, encode_reply(reply)))
        self.reader = Reader()
        self.subscribes = False
        self.dead = False
        """Whether it is half-open: nothing arrives at either end, and neither end is notified."""
        self._network = network
        self._closing = False
        network.wires.append(self)

    def write(self, data: Any) -> None:
        """Send bytes to the server."""
        if not self._closing:
            self.subscribes |= b"\r\nSUBSCRIBE\r\n" in data
            self._network.send_to_server(self, bytes(data))

    def is_closing(self) -> bool:
        """Return whether either end has closed it."""
        return self._closing

    def close(self) -> None:
        """Close it; bytes that were sent still arrive."""
        self.lose(None)

    abort = close

    def abandon(self) -> None:
        """Close it without a notice to the protocol, as the kernel does for a process that has ended."""
        self._closing = True
        self._network.forget(self)

    def lose(self, error: Exception | None) -> None:
        """Close it with an error for the protocol."""
        if not self._closing:
            self._closing = True
            self._network.forget(self)
            loop = self.owner.loop
            if not loop.is_closed():
                loop.call_soon(self.protocol.connection_lost, error)


@dataclass(eq=False)
class Segment:
    """Bytes in transit; to the client, no bytes mean the end of the connection."""

    wire: Wire
    data: bytes
    to_server: bool


class Network:
    """Carries bytes between processes and the model, and holds up bytes until they are released or the fault ends.

    A process has the attributes `loop`, `running`, `held` (its requests and responses wait for `arrive`), `isolated`
    (it reaches nothing), and `channel_cut`.
    """

    def __init__(self, server: RedisModel) -> None:
        self.server = server
        self.down = False
        """Whether connections are refused."""
        self.mute = False
        """Whether the server is suspended: connections are accepted, and nothing is read."""
        self.wires: list[Wire] = []
        self.segments: list[Segment] = []

    def check_reachable(self, owner: Any) -> None:
        """Raise `ConnectionRefusedError` if a process cannot connect."""
        if self.down or owner.isolated:
            raise ConnectionRefusedError("the server is down")

    def send_to_server(self, wire: Wire, data: bytes) -> None:
        """Send a request."""
        if wire.dead or (wire.subscribes and wire.owner.channel_cut):
            return
        self.segments.append(Segment(wire, data, to_server=True))

    def send_to_client(self, wire: Wire, data: bytes) -> None:
        """Send a response."""
        if not wire.dead:
            self.segments.append(Segment(wire, data, to_server=False))

    def held(self, owner: Any) -> list[Segment]:
        """Return the requests and responses of a process that are held up."""
        return [each for each in self.segments if each.wire.owner is owner and self._is_held(each)]

    def arrive(self, segment: Segment) -> None:
        """Let one segment arrive, and all earlier ones of its connection."""
        same = [each for each in self.segments if each.wire is segment.wire and each.to_server == segment.to_server]
        for each in same[: same.index(segment) + 1]:
            self._deliver_once(each)

    def deliver(self) -> bool:
        """Let everything arrive that is not held up; return whether there was anything."""
        ready = [each for each in self.segments if not self._is_held(each)]
        for segment in ready:
            self._deliver_once(segment)
        return bool(ready)

    def channel_is_empty(self, owner: Any) -> bool:
        """Return whether no message is in transit to a process."""
        return not any(each.wire.owner is owner and each.wire.subscribes for each in self.segments)

    def is_subscribed(self, owner: Any) -> bool:
        """Return whether a process receives published messages."""
        return any(wire.session in self.server.sessions for wire in self.wires_of(owner, channel=True))

    def reset(self, wires: list[Wire]) -> None:
        """Reset connections: bytes in transit are lost, and the processes get an error."""
        for wire in wires:
            self._drop_segments(wire)
            self._end_session(wire)
            self.segments.append(Segment(wire, b"", to_server=False))

    def forget(self, wire: Wire) -> None:
        """Forget a connection that its client has closed; sent bytes still reach the server."""
        self.wires = [each for each in self.wires if each is not wire]
        self.segments = [each for each in self.segments if each.wire is not wire or each.to_server]
        self._end_session(wire)

    def wires_of(self, owner: Any, *, channel: bool | None = None) -> list[Wire]:
        """Return the connections of a process: all, those of its channel, or the others."""
        return [wire for wire in self.wires if wire.owner is owner and channel in {None, wire.subscribes}]

    def silence(self, wire: Wire) -> None:
        """Drop all later bytes of a connection without an error."""
        wire.dead = True
        self._drop_segments(wire)
        self._end_session(wire)

    def _is_held(self, segment: Segment) -> bool:
        owner = segment.wire.owner
        if segment.to_server:
            return self.mute or (owner.held and not segment.wire.subscribes)
        return not owner.running or (owner.held and not segment.wire.subscribes)

    def _deliver_once(self, segment: Segment) -> None:
        if segment in self.segments:  # not reset by an earlier segment
            self.segments.remove(segment)
            self._deliver(segment)

    def _deliver(self, segment: Segment) -> None:
        wire = segment.wire
        if segment.to_server:
            if not self.down:
                wire.reader.feed(segment.data)
                while (command := wire.reader.gets()) is not False:
                    reply = self.server.execute(wire.session, command)
                    if not wire.is_closing():
                        self.send_to_client(wire, encode_reply(reply))
        elif not segment.data:
            wire.lose(ConnectionResetError("the connection was reset"))
        elif not wire.is_closing():
            wire.protocol.data_received(segment.data)

    def _drop_segments(self, wire: Wire) -> None:
        self.segments = [each for each in self.segments if each.wire is not wire]

    def _end_session(self, wire: Wire) -> None:
        self.server.sessions = [each for each in self.server.sessions if each is not wire.session]


def encode_reply(reply: Any) -> bytes:
    """Return a reply in RESP2."""
    match reply:
        case ErrorReply():
            return b"-%s\r\n" % str(reply).encode()
        case Status():
            return b"+%s\r\n" % reply
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(reply), reply)
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(encode_reply, reply))
        case Mapping():
            raise TypeError("RESP2 has no maps")
    raise TypeError(type(reply).__name__)

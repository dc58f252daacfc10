"""The connections on which requests are made: kept, bounded, and made again when they are lost."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tequipy_caching.infrastructure.cancellation import Cancellation

CONNECTIONS: Final = 50
CHANNEL: Final = 2
"""Connections of the channel."""
PROBES: Final = 2
"""Connections beside those, so that a crowd does not keep probes from Redis."""
_ATTEMPTS: Final = 5
"""How many connections a command is tried on, when they are lost."""
_PIECE: Final = 65_536
"""Bytes that are sent or received at once."""
_LARGE_WAITS: Final = 40
"""How many times the timeout a large request may take as a whole, while it goes on."""

_RETIRED_FOR: Final = 30.0
"""Seconds after which it is tried again whether the server takes more connections."""

logger = logging.getLogger(__name__)

Prepare = Callable[[AbstractConnection, Cancellation], Awaitable[None]]


class ConnectionLost(RedisConnectionError):
    """A connection was lost in use, though it could be made: Redis is not away."""


class ServerFull(Exception):
    """The server takes no further connection, and others of ours are there: wait for one of these."""


class NoFreeConnection(Exception):
    """All connections were in use for too long."""


class Deadline:
    """When a request is late: `seconds` after its last progress, for what is large goes in pieces."""

    def __init__(self, seconds: float) -> None:
        self.timeout = asyncio.timeout(seconds)
        self.over = False
        """Whether the request has ended; tasks that it has started may outlive it."""
        self._seconds = seconds
        self._pieces = 0
        self._latest = monotonic() + _LARGE_WAITS * seconds

    def extend(self) -> None:
        """Be called before each piece: from the second on the time counts from now."""
        self._pieces += 1
        if self._pieces > 1 and not self.over and not self.timeout.expired():
            self.timeout.reschedule(min(monotonic() + self._seconds, self._latest))


current_deadline: ContextVar[Deadline | None] = ContextVar("tequipy_caching_deadline", default=None)
"""Of the request that the running task makes."""


class ProgressParser(DefaultParser):  # type: ignore[misc,valid-type]  # -- redis-py chooses it by what is installed
    """Postpones the deadline as long as an answer arrives."""

    async def read_from_socket(self) -> Any:  # noqa: ANN401 -- as redis-py has it
        """Wait for the next piece."""
        if (deadline := current_deadline.get()) is not None:
            deadline.extend()
        return await super().read_from_socket()


class Connections:
    """Lends connections that stay open; each is prepared before its first use.

    To lend, check and measure one for each command, as redis-py's own `execute_command` does, costs more than the
    command.
    """

    def __init__(self, connect: Callable[[int], Redis], prepare: Prepare) -> None:
        self._connect = connect
        self._prepare = prepare
        self._idle: list[AbstractConnection] = []
        self._warned = False
        self._begin()

    def _begin(self) -> None:
        self._client = self._connect(CONNECTIONS + PROBES)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._open_connections: set[AbstractConnection] = set()
        self._surplus = 0
        """How many are to be given up, for others to have room."""

    async def in_turn(self, within: float, request: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 -- as execute
        """Return what a request gives, made when a connection is free; raises `NoneFree` and what the request does."""
        slots = self._slots
        if slots.locked():
            try:
                async with asyncio.timeout(within):
                    await slots.acquire()
            except TimeoutError as error:
                raise NoFreeConnection from error
        else:
            await slots.acquire()  # at once
        try:
            answer = await request()
        except ServerFull:
            self._retire(slots)
            raise
        except BaseException:
            slots.release()
            raise
        if self._surplus and self._idle:
            self._surplus -= 1
            await self._discard(self._idle.pop())
            self._retire(slots)
        else:
            slots.release()
        return answer

    def _retire(self, slots: asyncio.Semaphore) -> None:
        """Give a slot up for a while: the server has no connection for it."""
        asyncio.get_running_loop().call_later(_RETIRED_FOR, slots.release)

    async def make_room(self) -> None:
        """Give up as many connections as the channel needs, which the server has refused."""
        if self._open_connections:
            self._warn_once("the channel")
            self._surplus = CHANNEL
            while self._surplus and self._idle and not self._slots.locked():
                await self.in_turn(0, partial(asyncio.sleep, 0))

    def _warn_once(self, error: object) -> None:
        if not self._warned:
            self._warned = True
            extra = {"connections": len(self._open_connections), "error": str(error)}
            logger.warning("cache_connections_limited", extra=extra)

    async def execute(self, *command: Any) -> Any:  # noqa: ANN401 -- each command has an answer of its own
        """Send a command and return its answer.

        A connection that is lost meanwhile says nothing of Redis: the command is sent again on a new one. All of ours
        may be made twice; a request that a limit has counted already is counted twice then, never not at all.
        """
        with Cancellation() as cancellation:
            attempts = 0
            while True:
                attempts, used = attempts + 1, False
                try:
                    connection = await self._acquire(cancellation)
                    used = True
                    return await self._ask(connection, command, cancellation)
                except RedisConnectionError as error:
                    cancellation.check()
                    if attempts == _ATTEMPTS:
                        raise (ConnectionLost(str(error)) if used else error) from error

    async def disconnect_idle(self) -> None:
        """Let go of a server that has become a replica."""
        while self._idle:
            await self._discard(self._idle.pop())
        await self._client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close all connections; what comes after may be on another event loop."""
        self._idle.clear()
        await self._client.aclose()
        self._begin()

    async def _ask(self, connection: AbstractConnection, command: Sequence[Any], cancellation: Cancellation) -> Any:  # noqa: ANN401 -- as execute
        """Send a command on a connection and return its answer; keep the connection unless it is out of step."""
        try:
            cancellation.check()
            answer = await exchange(connection, command, cancellation)
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:  # cancelled too: its answer is still to come
            await self._discard(connection)
            raise
        self._idle.append(connection)
        return answer

    async def _acquire(self, cancellation: Cancellation) -> AbstractConnection:
        while self._idle:
            connection = self._idle.pop()
            with contextlib.suppress(OSError):
                if not await connection.can_read():
                    return connection
            await self._discard(connection)  # closed by the server, or out of step
        try:
            return await self._make(cancellation)
        except RedisConnectionError as error:
            cancellation.check()
            if self._open_connections and not isinstance(error.__context__, ConnectionRefusedError):
                self._warn_once(error)
                raise ServerFull(str(error)) from error
            raise

    async def _make(self, cancellation: Cancellation) -> AbstractConnection:
        new: AbstractConnection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # -- redis-py
        try:
            await self._prepare(new, cancellation)
        except BaseException:
            await self._discard(new)
            raise
        new.socket_timeout = None  # each request has a deadline of its own
        self._open_connections.add(new)
        return new

    async def _discard(self, connection: AbstractConnection) -> None:
        self._open_connections.discard(connection)
        await connection.disconnect(nowait=True)
        await self._client.connection_pool.release(connection)


async def exchange(connection: AbstractConnection, command: Sequence[Any], cancellation: Cancellation) -> Any:  # noqa: ANN401 -- as execute
    """Send a command on a connection, in pieces, and return its answer."""
    packed = pack_command(tuple(command))  # by hiredis: redis-py's own packing costs more than the command
    deadline = current_deadline.get()
    for start in range(0, len(packed), _PIECE):
        if deadline is not None:
            deadline.extend()
        await connection.send_packed_command(packed[start : start + _PIECE] if len(packed) > _PIECE else packed)
        cancellation.check()
    return await connection.read_response(timeout=inf)  # the caller has a deadline, which moves on with the answer

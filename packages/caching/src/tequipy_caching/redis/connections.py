"""The connections on which requests are made: a bounded number that stays open and is replaced when lost."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
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

from tequipy_caching.redis.cancellation import Cancellation

REQUEST_CONNECTIONS: Final = 50
"""How many requests a process makes at the same time."""
CHANNEL_CONNECTIONS: Final = 2
"""One that is subscribed, and one for the script that compares the position of the channel."""
PROBE_CONNECTIONS: Final = 2
"""Reserved for probes, so that many concurrent requests do not block them."""
_ATTEMPTS: Final = 5
"""How many connections a command is tried on if they are lost."""
_PIECE: Final = 65_536
"""Bytes that are sent at once."""
_MAX_PROGRESS_FACTOR: Final = 40
"""The longest duration of a request that makes progress, as a multiple of the timeout."""
_SLOT_RETIRED_FOR: Final = 30.0
"""Seconds until a slot is used again after the server refused a connection for it."""

logger = logging.getLogger(__name__)

Prepare = Callable[[AbstractConnection, Cancellation], Awaitable[None]]


class ConnectionLost(RedisConnectionError):
    """A connection was lost in use, although it could be made: Redis is reachable."""


class ServerFull(Exception):
    """The server accepts no further connection, but this process has others: the request must wait for one of them."""


class NoFreeConnection(Exception):
    """No connection became free within the allowed time."""


class Deadline:
    """The deadline of a request: `seconds` after its last progress. Large requests are transferred in pieces."""

    def __init__(self, seconds: float) -> None:
        self.timeout = asyncio.timeout(seconds)
        self.over = False
        """Whether the request has ended. Tasks that it started may run longer and must not extend the deadline."""
        self._seconds = seconds
        self._pieces = 0
        self._latest = monotonic() + _MAX_PROGRESS_FACTOR * seconds

    def extend(self) -> None:
        """Restart the timeout, because the request makes progress. Call this before each piece is sent or received.

        The first piece is no progress yet.
        """
        self._pieces += 1
        if self._pieces > 1 and not self.over and not self.timeout.expired():
            self.timeout.reschedule(min(monotonic() + self._seconds, self._latest))


current_deadline: ContextVar[Deadline | None] = ContextVar("tequipy_caching_deadline", default=None)
"""The deadline of the request that the running task makes."""


class ProgressParser(DefaultParser):  # type: ignore[misc,valid-type]  # -- redis-py chooses it by what is installed
    """A parser that extends the deadline of the request while a response arrives."""

    async def read_from_socket(self) -> Any:  # noqa: ANN401 -- as redis-py has it
        """Extend the deadline, and wait for the next piece of the response."""
        if (deadline := current_deadline.get()) is not None:
            deadline.extend()
        return await super().read_from_socket()


class Connections:
    """Lends connections that stay open, and prepares each before its first use.

    redis-py's `execute_command` takes a connection from the pool, checks and measures it for each command. This costs
    more than the command itself.
    """

    def __init__(self, connect: Callable[[int], Redis], prepare: Prepare, *, labels: Mapping[str, str]) -> None:
        self._labels = labels  # logged, to tell the connection
        self._connect = connect
        self._prepare = prepare
        self._idle: list[AbstractConnection] = []
        self._warned = False
        self._reset()

    def _reset(self) -> None:
        self._client = self._connect(REQUEST_CONNECTIONS + PROBE_CONNECTIONS)
        self._slots = asyncio.Semaphore(REQUEST_CONNECTIONS)
        self._open_connections: set[AbstractConnection] = set()
        self._surplus = 0
        """How many connections are still to be closed for the channel, which could not connect to a full server."""

    async def in_turn(self, within: float, request: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 -- as execute
        """Make a request when a connection is free, and return its result.

        Raises `NoFreeConnection` after `within` seconds, and the exceptions of the request.
        """
        slots = self._slots
        if slots.locked():
            try:
                async with asyncio.timeout(within):
                    await slots.acquire()
            except TimeoutError as error:
                raise NoFreeConnection from error
        else:
            await slots.acquire()  # does not wait, so no timeout is needed
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
        """Withdraw a slot for a while, because the server accepts no connection for it."""
        asyncio.get_running_loop().call_later(_SLOT_RETIRED_FOR, slots.release)

    async def make_room(self) -> None:
        """Close as many connections as the channel needs, because the server refused the channel's connection."""
        if self._open_connections:
            self._warn_once("the channel")
            self._surplus = CHANNEL_CONNECTIONS
            while self._surplus and self._idle and not self._slots.locked():
                # A request that does nothing: at its end `in_turn` closes an idle connection and retires its slot.
                await self.in_turn(0, partial(asyncio.sleep, 0))

    def _warn_once(self, error: object) -> None:
        if not self._warned:
            self._warned = True
            extra = {**self._labels, "connections": len(self._open_connections), "error": str(error)}
            logger.warning("cache_connections_limited", extra=extra)

    async def execute(self, *command: Any) -> Any:  # noqa: ANN401 -- each command has an answer of its own
        """Send a command and return its response.

        If the connection is lost meanwhile, the command is sent again on a new one: Redis may still be reachable. All
        commands of this package may be executed twice. A rate limit may so count a request twice, but never omits one.
        """
        with Cancellation() as cancellation:
            attempts = 0
            while True:
                attempts, connected = attempts + 1, False
                try:
                    connection = await self._acquire(cancellation)
                    connected = True
                    return await self._send(connection, command, cancellation)
                except RedisConnectionError as error:
                    cancellation.check()
                    if attempts == _ATTEMPTS:
                        # Only a connection that cannot be made shows that Redis is unreachable.
                        raise (ConnectionLost(str(error)) if connected else error) from error

    async def disconnect_idle(self) -> None:
        """Close the idle connections, because their server has become a replica."""
        while self._idle:
            await self._discard(self._idle.pop())
        await self._client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close all connections. Later requests may be made in another event loop."""
        self._idle.clear()
        await self._client.aclose()
        self._reset()

    async def _send(self, connection: AbstractConnection, command: Sequence[Any], cancellation: Cancellation) -> Any:  # noqa: ANN401 -- as execute
        """Send a command on a connection and return its response; close the connection if it may have unread bytes."""
        try:
            cancellation.check()
            answer = await exchange(connection, command, cancellation)
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:  # also when cancelled, because the response is still to come
            await self._discard(connection)
            raise
        self._idle.append(connection)
        return answer

    async def _acquire(self, cancellation: Cancellation) -> AbstractConnection:
        """Return an idle connection that is usable, or a new one; raise `ServerFull` if the server accepts no more."""
        while self._idle:
            connection = self._idle.pop()
            with contextlib.suppress(OSError):
                if not await connection.can_read():
                    return connection
            await self._discard(connection)  # closed by the server, or with unread bytes
        try:
            return await self._open_connection(cancellation)
        except RedisConnectionError as error:
            cancellation.check()
            # A refused connection means that no server listens. A full one (`maxclients`) accepts and closes it.
            if self._open_connections and not isinstance(error.__context__, ConnectionRefusedError):
                self._warn_once(error)
                raise ServerFull(str(error)) from error
            raise

    async def _open_connection(self, cancellation: Cancellation) -> AbstractConnection:
        new: AbstractConnection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # -- redis-py
        try:
            await self._prepare(new, cancellation)
        except BaseException:
            await self._discard(new)
            raise
        new.socket_timeout = None  # each request has its own deadline
        self._open_connections.add(new)
        return new

    async def _discard(self, connection: AbstractConnection) -> None:
        self._open_connections.discard(connection)
        await connection.disconnect(nowait=True)
        await self._client.connection_pool.release(connection)


async def exchange(connection: AbstractConnection, command: Sequence[Any], cancellation: Cancellation) -> Any:  # noqa: ANN401 -- as execute
    """Send a command on a connection, in pieces, and return its response."""
    packed = pack_command(tuple(command))  # by hiredis, because packing by redis-py costs more than the command
    deadline = current_deadline.get()
    for start in range(0, len(packed), _PIECE):
        if deadline is not None:
            deadline.extend()
        await connection.send_packed_command(packed[start : start + _PIECE] if len(packed) > _PIECE else packed)
        cancellation.check()
    return await connection.read_response(timeout=inf)  # the caller's deadline applies

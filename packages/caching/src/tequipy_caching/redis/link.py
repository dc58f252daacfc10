"""The connection to Redis. A call waits a bounded time when Redis is unreachable, and later calls do not wait."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from functools import cache, partial
from time import monotonic
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.cache.metrics import CacheMetrics
from tequipy_caching.cache.recovery import RecoveryQueue
from tequipy_caching.redis.cancellation import Cancellation
from tequipy_caching.redis.circuit_breaker import Breaker
from tequipy_caching.redis.connections import (
    ConnectionLost,
    Connections,
    Deadline,
    NoFreeConnection,
    ProgressParser,
    ServerFull,
    current_deadline,
    exchange,
)
from tequipy_caching.redis.loop_binding import LoopBinding
from tequipy_caching.redis.messages import PROBE_MESSAGE, Message, Position
from tequipy_caching.redis.scripts import digest_of, parsing, script
from tequipy_caching.redis.url import parse_redis_url
from tequipy_caching.redis.writes import Writes, as_reason, kind_of, refusal_of
from tequipy_observability import Span, SpanKind, span

_SLOT_WAIT_FACTOR: Final = 4
"""The longest wait for a connection, as a multiple of the timeout. The timeout itself begins after the wait."""
_MAX_LARGE_TRANSFERS: Final = 2
"""How many values above 1 MiB are transferred at the same time, so that small values do not wait for them."""
_JOIN: Final = "join"
_LAG_SHARE: Final = 0.2
"""If a deadline is noticed this share of the timeout too late, this process was late, not Redis."""

logger = logging.getLogger(__name__)


class RedisLink:
    """Runs scripts. Raises `CacheUnavailable` after `timeout` seconds, or at once while the circuit breaker is open."""

    def __init__(self, url: str, *, prefix: str, timeout: float, metrics: CacheMetrics, name: str = "cache") -> None:
        self.prefix = prefix
        self._server = parse_redis_url(url)
        server = f"{self._server.host}:{self._server.port}/{self._server.database}"
        self.labels = {"link": name, "server": server}
        """What log events say of this connection: one process may have several, also to one server."""
        self.state = f"{prefix}:state"
        self.probe_key = f"{prefix}:probe"
        self.breaker = Breaker(
            self._recover,
            has_pending=lambda: len(self.recovery) > 0 or self.writes.refusal is not None,
            labels=self.labels,
        )
        self.recovery = RecoveryQueue(self.breaker.start_probing)
        self.writes = Writes(self.breaker.start_probing, self.recovery.trust_soon, labels=self.labels)
        self.rejoins = 0
        """How often a server accepted writes that a replica, or a server with older data, had refused. The channel then
        reconnects: the name may lead to another server, and older data need a new epoch."""
        self._must_rejoin = False
        """Whether the server has become a replica, or has older data, and writes have not been accepted since."""
        self.position: Position | None = None
        """How far this process has received the channel, for comparison with a server: one with a lower sequence number
        of the same epoch has lost its last changes."""
        # The channels of a server are shared by all its databases; its keys are not.
        self.channel = f"{prefix}:invalidations:{self._server.database}"
        self._timeout = timeout
        self._observe = cache(partial(metrics.seconds, "cache_l2_seconds"))
        self.loop_binding = LoopBinding()
        self._connections = Connections(self.connect, self._compare_epoch, labels=self.labels)
        self.large_turns = asyncio.Semaphore(_MAX_LARGE_TRANSFERS)
        self._reported: set[type[Exception]] = set()
        self._errors = {
            kind: metrics.tally("cache_l2_errors", kind) for kind in ("busy", "connection", "timeout", "answer")
        }
        self._published = metrics.tally("cache_backplane_messages", "out")
        metrics.watch("cache_breaker_state", lambda: self.breaker.open)
        metrics.watch("cache_writes_refused", lambda: self.writes.refusal is not None)
        metrics.watch("cache_recovery_queue", lambda: len(self.recovery))

    def connect(self, connections: int) -> Redis:
        """Return a client with a bounded pool. Connections do not retry: redis-py's own retries would hide outages."""
        server = self._server
        return Redis.from_pool(
            BlockingConnectionPool(
                connection_class=Connection if server.tls is None else SSLConnection,
                **(server.tls or {}),
                host=server.host,
                port=server.port,
                db=server.database,
                username=server.username,
                password=server.password,
                max_connections=connections,
                timeout=None,  # waiting for a connection is not an outage; the caller's own deadline ends it
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                parser_class=ProgressParser,
                retry=Retry(NoBackoff(), 0),
                retry_on_error=[],
                health_check_interval=0,
                protocol=2,  # RESP3 is not needed, and costs each connection a round trip
            )
        )

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:  # noqa: ANN401 -- the type of the result depends on the script
        """Run the script with this file name and return its result."""
        return await self._run(name, keys, arguments)

    async def _run(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], refused_message: str | None = None
    ) -> Any:  # noqa: ANN401 -- as above
        """Run a script. If Redis refuses the write, publish `refused_message` in its place."""
        self.loop_binding.check()
        if not self.breaker.allows_call():
            raise CacheUnavailable("Redis is unreachable: the circuit breaker is open")
        try:
            with span("EVALSHA", name, kind=SpanKind.CLIENT) as step:
                if step.recording:
                    self._describe(step, name)
                return await self._run_in_turn(name, keys, arguments)
        except NoFreeConnection as error:
            self._errors["busy"].count += 1
            raise CacheUnavailable(f"Redis did not run {name!r}: no connection became free") from error
        except CacheUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 -- after any failure, callers go on without Redis
            failure = error
        self._errors[kind_of(failure)].count += 1
        self._report_unexpected(failure)
        if (reason := refusal_of(failure)) is not None:
            await self._refuse(reason, failure, refused_message)
        raise CacheUnavailable(f"Redis did not run {name!r}: {type(failure).__name__}") from failure

    def _describe(self, step: Span, name: str) -> None:
        """Set attributes (OpenTelemetry, Redis client spans); keys, which may name users, are left out."""
        step.set("db.system.name", "redis")
        step.set("db.operation.name", "EVALSHA")
        step.set("db.stored_procedure.name", name)
        step.set("db.namespace", str(self._server.database))
        step.set("server.address", self._server.host)
        step.set("server.port", self._server.port)

    async def _run_in_turn(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:  # noqa: ANN401 -- as above
        """Run a script when a connection is free; if the server accepts no new one, wait for an existing one."""
        ends = monotonic() + _SLOT_WAIT_FACTOR * self._timeout
        while True:
            with contextlib.suppress(ServerFull):
                return await self._connections.in_turn(
                    ends - monotonic(), partial(self._run_now, name, keys, arguments)
                )

    async def _run_now(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:  # noqa: ANN401 -- as above
        """Run a script within the timeout, or open the breaker, before the next waiting request gets the connection."""
        if not self.breaker.allows_call():  # opened by an earlier request during the wait
            raise CacheUnavailable("Redis is unreachable: the circuit breaker is open")
        started, deadline = monotonic(), Deadline(self._timeout)
        token = current_deadline.set(deadline)
        try:
            async with deadline.timeout:
                answer = await self._evaluate(name, len(keys), [*keys, *arguments])
        except Exception as error:
            kind = kind_of(error)
            if (kind == "connection" and not isinstance(error, ConnectionLost)) or (
                kind == "timeout" and not await self._lags(deadline)
            ):
                self.breaker.trip(error)
            raise
        finally:
            current_deadline.reset(token)
            deadline.over = True
        self._observe(name)(monotonic() - started)
        return answer

    def _report_unexpected(self, error: Exception) -> None:
        """Log the first error of each type that an outage does not explain: a bug of redis-py or of this package."""
        if not isinstance(error, RedisError | OSError) and type(error) not in self._reported:
            self._reported.add(type(error))
            logger.error("cache_request_failed", exc_info=error, extra=self.labels)

    async def run_and_publish(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], *, message: Message
    ) -> Any:  # noqa: ANN401 -- as run
        """Run a script that calls `publish()`, so that the change and its message are one atomic step."""
        channel_arguments = [self.channel, secrets.token_hex(8), message.numbered]
        answer = await self._run(name, [self.state, *keys], [*channel_arguments, *arguments], message.refused)
        self._published.count += 1
        return answer

    async def check_reachable(self) -> None:
        """Find out why the channel could not connect, by running a script.

        If Redis is unreachable, this opens the breaker. If it answers, it may accept no more connections, so some are
        closed for the channel.
        """
        with contextlib.suppress(CacheUnavailable):
            await self._run("probe", [self.state, self.probe_key], [])
            await self._connections.make_room()

    async def ping(self) -> float:
        """Return the seconds that Redis took to answer, and update whether it accepts writes.

        Asks Redis even while the breaker is open. Raises `CacheUnavailable` if it does not answer; a server that
        refuses writes does answer.
        """
        self.loop_binding.check()
        started = monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    await self._probe()
                except ServerFull:
                    await self._connections.in_turn(self._timeout, self._probe)
        except Exception as error:
            raise CacheUnavailable(f"Redis does not answer: {type(error).__name__}") from error
        return monotonic() - started

    async def _probe(self) -> None:
        """Record whether the server accepts writes; raise an exception if it does not answer."""
        try:
            # After a refusal, writes are accepted again only if messages can be published too.
            message = [] if self.writes.refusal is None else [self.channel, PROBE_MESSAGE]
            reason = await self._evaluate("probe", 2, [self.state, self.probe_key, *message])
        except ResponseError as error:
            if (refusal := refusal_of(error)) is None:
                raise
            await self._refuse(refusal, error, None)
            return
        if reason is None:
            self._accept()
        else:
            self.writes.refuse(as_reason(reason.decode(errors="replace")), blocked=False)

    async def _refuse(self, reason: str, error: Exception, message: str | None) -> None:
        """Record a refusal, and publish the refused change to the other processes, because PUBLISH is not a write."""
        self.writes.refuse(reason, blocked=not isinstance(error, OutOfMemoryError))
        if message is not None:
            with contextlib.suppress(RedisError, OSError, NoFreeConnection, ServerFull):
                async with asyncio.timeout(self._timeout):
                    publish = partial(self._connections.execute, "PUBLISH", self.channel, message)
                    await self._connections.in_turn(self._timeout, publish)
                self._published.count += 1
        if isinstance(error, ReadOnlyError):  # after PUBLISH, because the host name may lead to another server now
            await self._connections.disconnect_idle()
            if not self._must_rejoin:
                self._must_rejoin = True
                self.breaker.probe_now()

    def _accept(self) -> None:
        self.writes.accept()
        if self._must_rejoin:
            self._must_rejoin = False
            self.rejoins += 1

    async def close(self) -> None:
        """Close all connections, after a last attempt to replay the recovery queue if Redis is reachable."""
        await self.breaker.stop()
        with contextlib.suppress(CacheUnavailable):
            await self.recovery.replay()
        await self.breaker.stop()  # the replay may have opened it again
        await self._connections.close()
        self.loop_binding.unbind()
        self.large_turns = asyncio.Semaphore(_MAX_LARGE_TRANSFERS)

    async def _recover(self) -> None:
        """Probe Redis, and replay the recovery queue if it accepts deletes."""
        await self.ping()
        if not self.writes.blocked:
            await self.recovery.replay()

    async def _lags(self, deadline: Deadline) -> bool:
        """Return whether this process, not Redis, was too slow: a busy event loop notices an arrived response too late.

        It was busy if the timeout fired late, or if the next turn of the event loop takes long.
        """
        noticed, due = monotonic(), deadline.timeout.when() or 0
        await asyncio.sleep(0)
        slack = self._timeout * _LAG_SHARE
        return noticed - due > slack or monotonic() - noticed > slack

    async def _evaluate(self, name: str, number_of_keys: int, values: Sequence[Any]) -> Any:  # noqa: ANN401 -- as run
        """Run a script by its digest, or by its text if the server does not know the digest."""
        try:
            return await self._connections.execute("EVALSHA", digest_of(name), number_of_keys, *values)
        except NoScriptError:
            return await self._connections.execute("EVAL", script(name), number_of_keys, *values)

    async def _compare_epoch(self, connection: AbstractConnection, cancellation: Cancellation) -> None:
        """Run the script `join` on a new connection: it begins a new epoch if the server was restarted.

        This precedes every other request, because a restarted server may have older data, in which deleted values are
        back. If the server refuses writes, a new epoch cannot begin; then this process does not use its data.
        """
        known = self.position or Position("", 0)
        rest: list[Any] = [2, self.state, self.probe_key, secrets.token_hex(8), known.epoch, known.sequence]
        try:
            try:
                answer = await exchange(connection, ["EVALSHA", digest_of(_JOIN), *rest], cancellation)
            except NoScriptError:
                answer = await exchange(connection, ["EVAL", script(_JOIN), *rest], cancellation)
        except ResponseError as error:
            if (reason := refusal_of(error)) is None:
                raise
            # The connection is used all the same: PUBLISH may be permitted, and refused changes must be published.
            self.distrust(reason.encode(), old=True)
            return
        with parsing(_JOIN):
            _, _, refusal, old = answer
            if old:  # of an earlier run, without a new epoch
                self.distrust(refusal, old=True)

    def distrust(self, refusal: bytes, *, old: bool = False) -> None:
        """Record that Redis refuses writes, and that this process must not read L2: it may have missed changes.

        With `old`, Redis has older data, and its refusal prevents a new epoch.
        """
        self._must_rejoin |= old
        self.writes.refuse(as_reason(refusal.decode(errors="replace")), blocked=True)
        self.recovery.distrust()

"""The bounds of the server's connections: how many there are, how long each may keep us waiting, what is refused."""

import math
import resource
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from tequipy_api.settings import ApiSettings, ServerSettings
from tequipy_observability import CORRELATION_HEADER, RequestContext, new_correlation_id, request_context
from tequipy_platform import DomainError
from tequipy_platform.api import problem_response, security_headers

if TYPE_CHECKING:
    from tequipy_api.protocol import EdgeProtocol

_RESERVED_FILES: Final = 128
"""Files that the process needs beside connections and the database's pool: Redis, storage, listener, name lookups."""
_MOST_CONNECTIONS: Final = 4096
"""The default where the operating system would allow more: each idle connection takes some 10 KB."""
_LOG_SECONDS: Final = 60.0
"""The connection limit is logged at most this often."""
_LINGER_SECONDS: Final = 2.0
"""How long what a refused client still sends is read and discarded: closed at once, its answer would be lost."""
_STALL_SECONDS: Final = 30.0
"""How long a client may take nothing of an answer that does not fit into the buffers."""


def connection_limit(settings: ApiSettings) -> int:
    """Return how many connections the server keeps open; raises `ValueError` when there are too few files for them.

    Without the setting it is what RLIMIT_NOFILE leaves beside the files that the process needs itself, at most 4,096.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _RESERVED_FILES + settings.database.pool_size + settings.database.max_overflow
    available = math.inf if files == resource.RLIM_INFINITY else files - needed
    wanted = settings.server.max_connections
    if available < (wanted or 1):
        limit = f"at most {available}" if available > 0 else "smaller than possible"
        raise ValueError(
            f"should be {limit}: the process may open {files} files (ulimit -n) and needs {needed} of them itself"
        )
    return wanted or int(min(available, _MOST_CONNECTIONS))


class Waiting:
    """Connections that wait for their client, in the order in which their time runs out."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: OrderedDict[EdgeProtocol, float] = OrderedDict()

    def add(self, connection: "EdgeProtocol") -> None:
        """Begin to wait; the time is the same for each, so that the order of arrival is the order of deadlines."""
        self._deadlines[connection] = time.monotonic() + self._seconds

    def remove(self, connection: "EdgeProtocol") -> None:
        """Wait no longer."""
        del self._deadlines[connection]

    def oldest(self) -> "EdgeProtocol | None":
        """Return the connection that has waited longest."""
        return next(iter(self._deadlines), None)

    def expired(self, now: float) -> "Iterator[EdgeProtocol]":
        """Yield each connection whose time is over; the caller removes it."""
        while self._deadlines:
            connection, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                return
            yield connection


class Edge(ServerState):
    """What all connections of the server share: uvicorn's own state, the limits, and the connections that wait."""

    def __init__(
        self, settings: ServerSettings, *, max_connections: int, hsts: bool, registry: CollectorRegistry
    ) -> None:
        super().__init__()
        self._security_headers = [
            (name.lower().encode(), value.encode()) for name, value in security_headers(hsts=hsts).items()
        ]
        self.max_head_size = settings.max_head_size
        self._max_connections = max_connections
        self.heads = Waiting(settings.head_timeout)
        """A head has begun, or the connection is new."""
        self.bodies = Waiting(settings.body_timeout)
        self.idle = Waiting(settings.keep_alive_timeout)
        """Everything is answered, and the next request has not begun."""
        self.stalled = Waiting(_STALL_SECONDS)
        self.lingering = Waiting(_LINGER_SECONDS)
        self._log = structlog.get_logger(logger_name="tequipy.edge")
        self._access_log = structlog.get_logger(logger_name="tequipy.access")
        self._limit_logged_at = -math.inf
        self._dropped = {"evicted": 0, "refused": 0}
        gauge = Gauge("http_connections", "Open connections.", registry=registry)
        gauge.set_function(lambda: len(self.connections))
        self._refusals = Counter(
            "http_edge_refusals", "What the server refused before the app, by reason.", ["reason"], registry=registry
        )

    def sweep(self) -> None:
        """End what has waited too long; called a few times a second."""
        now = time.monotonic()
        for waiting in (self.heads, self.bodies, self.idle, self.stalled, self.lingering):
            for connection in waiting.expired(now):
                connection.expire()
        if any(self._dropped.values()) and now >= self._limit_logged_at + _LOG_SECONDS:
            self._limit_logged_at = now
            self._log.warning("connection_limit_reached", limit=self._max_connections, **self._dropped)
            self._dropped = dict.fromkeys(self._dropped, 0)

    def admit(self) -> bool:
        """Tell whether the connection that was added last may stay; the one that waits longest makes room for it."""
        while len(self.connections) > self._max_connections:
            lists = (self.lingering, self.heads, self.idle, self.stalled, self.bodies)
            oldest = next((found for waiting in lists if (found := waiting.oldest()) is not None), None)
            if oldest is None:
                self._drop("refused")
                return False
            if oldest in self.connections:  # else it has made room before, and lingers: closing it makes no more
                self._drop("evicted")
            oldest.evict()
        return True

    def _drop(self, how: str) -> None:
        self._refusals.labels(f"connection_{how}").inc()
        self._dropped[how] += 1

    def refuse(self, error: DomainError, client: str | None, *, log: bool = True) -> bytes:
        """Return the answer to what never reached the app: a problem document after which the connection closes.

        It is one access event, like any other answer; the app's own middleware has not seen it.
        """
        correlation_id = new_correlation_id()
        with request_context(RequestContext(correlation_id=correlation_id, ip=client)):
            answer = problem_response(error)
            if log:
                self._refusals.labels(error.code).inc()
                self._access_log.warning(
                    "http_request", route="__unmatched__", status=answer.status_code, reason=error.code
                )
        fields = [
            *self.default_headers,
            *answer.raw_headers,
            *self._security_headers,
            (CORRELATION_HEADER.lower().encode(), correlation_id.encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        return b"".join((STATUS_LINE[answer.status_code], head, b"\r\n", bytes(answer.body)))

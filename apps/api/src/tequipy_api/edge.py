"""Limits of the server's connections: their number, how long each may wait for its client, and refusals."""

import math
import resource
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from tequipy_api.settings import ApiSettings, ServerSettings
from tequipy_api.writes import Turn
from tequipy_observability import CORRELATION_HEADER, RequestContext, new_correlation_id, request_context
from tequipy_platform import DomainError
from tequipy_platform.web import problem_response, security_headers

_RESERVED_FILES: Final = 128
"""Files that the process needs besides connections and database pool: Redis, storage, listener, name lookups."""
_MAX_CONNECTIONS: Final = 4096
"""The default limit if the operating system allows more; each idle connection takes about 10 KB."""
_LOG_SECONDS: Final = 60.0
"""The minimum interval of log lines about the connection limit."""
_LINGER_SECONDS: Final = 2.0
"""How long input of a refused client is read and discarded; closing at once would lose the response."""
_STALL_SECONDS: Final = 30.0
"""How long a client may read nothing of a response that exceeds the buffers."""


def connection_limit(settings: ApiSettings) -> int:
    """Return the maximum number of connections; raises `ValueError` if the process may open too few files.

    Without the setting it is RLIMIT_NOFILE minus the files that the process itself needs, at most 4,096.
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
    return wanted or int(min(available, _MAX_CONNECTIONS))


class LimitedConnection(ABC, HttpToolsProtocol):
    """A connection that the server may end, because its client is too slow or because there are too many."""

    @abstractmethod
    def expire(self) -> None:
        """End the connection, whose deadline has passed."""

    @abstractmethod
    def evict(self) -> None:
        """End the connection in favour of a new one."""


class WaitList:
    """Connections that wait for their client, in the order of their deadlines."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: OrderedDict[LimitedConnection, float] = OrderedDict()

    def add(self, connection: LimitedConnection) -> None:
        """Start a connection's wait; all waits are equally long, so arrivals are in the order of deadlines."""
        self._deadlines[connection] = time.monotonic() + self._seconds

    def remove(self, connection: LimitedConnection) -> None:
        """End a connection's wait."""
        del self._deadlines[connection]

    def oldest(self) -> LimitedConnection | None:
        """Return the connection that has waited longest, or None."""
        return next(iter(self._deadlines), None)

    def expired(self, now: float) -> Iterator[LimitedConnection]:
        """Yield each connection whose deadline has passed; the caller must remove it."""
        while self._deadlines:
            connection, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                return
            yield connection


class Edge(ServerState):
    """State shared by all connections of the server: uvicorn's own, the limits, and the wait lists."""

    def __init__(
        self, settings: ServerSettings, *, max_connections: int, hsts: bool, registry: CollectorRegistry
    ) -> None:
        super().__init__()
        self._security_headers = [
            (name.lower().encode(), value.encode()) for name, value in security_headers(hsts=hsts).items()
        ]
        self.max_head_size = settings.max_head_size
        self._max_connections = max_connections
        self.heads = WaitList(settings.head_timeout)
        """Connections that are new or have received a part of a head."""
        self.bodies = WaitList(settings.body_timeout)
        self.idle = WaitList(settings.keep_alive_timeout)
        """Connections without a request: all earlier ones have been answered."""
        self.turn = Turn()
        self.stalled = WaitList(_STALL_SECONDS)
        self.lingering = WaitList(_LINGER_SECONDS)
        self._log = structlog.get_logger(logger_name=__name__)
        self._access_log = structlog.get_logger(logger_name="tequipy.access")
        self._limit_logged_at = -math.inf
        self._dropped = {"evicted": 0, "refused": 0}
        gauge = Gauge("http_connections", "Open connections.", registry=registry)
        gauge.set_function(lambda: len(self.connections))
        self._refusals = Counter(
            "http_edge_refusals",
            "Requests refused by the server before the app, by reason.",
            ["reason"],
            registry=registry,
        )

    def sweep(self) -> None:
        """Close connections whose deadline has passed; called several times a second."""
        now = time.monotonic()
        for waiting in (self.heads, self.bodies, self.idle, self.stalled, self.lingering):
            for connection in waiting.expired(now):
                connection.expire()
        if any(self._dropped.values()) and now >= self._limit_logged_at + _LOG_SECONDS:
            self._limit_logged_at = now
            self._log.warning("connection_limit_reached", limit=self._max_connections, **self._dropped)
            self._dropped = dict.fromkeys(self._dropped, 0)

    def admit(self) -> bool:
        """Return whether the newest connection may stay; over the limit, the one that waited longest is closed."""
        while len(self.connections) > self._max_connections:
            lists = (self.lingering, self.heads, self.idle, self.stalled, self.bodies)
            oldest = next((found for waiting in lists if (found := waiting.oldest()) is not None), None)
            if oldest is None:
                self._drop("refused")
                return False
            if oldest in self.connections:  # otherwise it was evicted before and lingers, and frees no further slot
                self._drop("evicted")
            oldest.evict()
        return True

    def _drop(self, how: str) -> None:
        self._refusals.labels(f"connection_{how}").inc()
        self._dropped[how] += 1

    def refuse(self, error: DomainError, client: str | None, *, log: bool = True) -> bytes:
        """Return the response to a request that does not reach the app: a problem document with `Connection: close`.

        Writes the access event itself, because the app's middleware does not see the request.
        """
        correlation_id = new_correlation_id()
        with request_context(RequestContext(correlation_id=correlation_id, ip=client)):
            response = problem_response(error)
            if log:
                self._refusals.labels(error.code).inc()
                ours = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
                write = self._access_log.error if ours else self._access_log.info
                write("http_request", route="__unmatched__", status=response.status_code, reason=error.code)
        fields = [
            *self.default_headers,
            *response.raw_headers,
            *self._security_headers,
            (CORRELATION_HEADER.lower().encode(), correlation_id.encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        return b"".join((STATUS_LINE[response.status_code], head, b"\r\n", bytes(response.body)))

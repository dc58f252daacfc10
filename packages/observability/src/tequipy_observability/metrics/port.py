"""The metrics' own port: a small WSGI server with a limit of connections and an idle timeout."""

import contextlib
import errno
import socket
from collections import OrderedDict
from functools import partial
from http.server import HTTPServer
from socketserver import ThreadingMixIn
from threading import Lock, Semaphore, Thread
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

MAX_CONNECTIONS: Final = 8
"""The number of concurrent connections, and so of threads; there are few scrapers."""
_IDLE_SECONDS: Final = 5.0
"""The time after which a connection that sends nothing is closed."""
_YIELD_SECONDS: Final = 1.0
"""How long a new connection waits for the oldest one, which is being closed, to end."""
_POLL_SECONDS: Final = 0.1
"""How long closing the port may wait for the thread that accepts connections."""


class MetricsPort:
    """Serves one WSGI app on a port of all IPv6 and IPv4 addresses until it is closed."""

    def __init__(self, port: int, app: WSGIApplication) -> None:
        """Open the port; raises `OSError` when it is not available."""
        try:
            self._server: _Server = _DualStackServer(("::", port), _Handler)
        except OSError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}:
                raise
            self._server = _Server(("", port), _Handler)  # a machine without IPv6
        self._server.set_app(app)
        serve = partial(self._server.serve_forever, poll_interval=_POLL_SECONDS)
        self._thread = Thread(target=serve, name="tequipy-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port, and return when it is closed."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread; a connection over the limit closes the oldest one."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._free = Semaphore(MAX_CONNECTIONS)
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without `HTTPServer`'s look-up of the host's name, which can take long."""
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = "metrics", self.server_address[1]
        self.setup_environ()

    def process_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- socketserver's
        """Serve a connection in a new thread, as soon as the limit allows it."""
        if not self._free.acquire(blocking=False):
            self._end_oldest()
            if not self._free.acquire(timeout=_YIELD_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- as above
        """Serve a connection, and release its slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self._free.release()

    def _end_oldest(self) -> None:
        with self._lock:
            if self._open:
                oldest, _ = self._open.popitem(last=False)
                with contextlib.suppress(OSError):  # it may have ended already
                    oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which then ends

    def handle_error(self, request: object, client_address: object) -> None:
        """Do not log connections that break off."""


class _DualStackServer(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(WSGIRequestHandler):
    timeout = _IDLE_SECONDS

    def log_message(self, *_: object) -> None:
        """Do not log scrapes, which happen every few seconds."""

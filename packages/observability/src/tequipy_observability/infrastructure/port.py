"""The metrics' own port: a small WSGI server that few connections can use at once, and none can block."""

import contextlib
import errno
import socket
from collections import OrderedDict
from http.server import HTTPServer
from socketserver import ThreadingMixIn
from threading import Lock, Semaphore, Thread
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

MOST_CONNECTIONS: Final = 8
"""Connections, and so threads, at once: scrapers are few."""
_IDLE_SECONDS: Final = 5.0
"""How long a connection may send nothing."""
_YIELD_SECONDS: Final = 1.0
"""How long a new connection waits for the oldest one to end, which was told to."""


class MetricsPort:
    """Serves one WSGI app on a port of all addresses, IPv6 and IPv4, until it is closed."""

    def __init__(self, port: int, app: WSGIApplication) -> None:
        """Open the port; raises `OSError` when it cannot be had."""
        try:
            self._server: _Server = _DualStackServer(("::", port), _Handler)
        except OSError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}:
                raise
            self._server = _Server(("", port), _Handler)  # a machine without IPv6
        self._server.set_app(app)
        self._thread = Thread(target=self._server.serve_forever, name="tequipy-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port; returns when it is closed."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each of at most eight connections; the oldest gives way to a ninth."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._places = Semaphore(MOST_CONNECTIONS)
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without the look-up of our own name that `HTTPServer` does, which may take long."""
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = "metrics", self.server_address[1]
        self.setup_environ()

    def process_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- socketserver's
        """Serve a connection in a thread of its own, when it has a place."""
        if not self._places.acquire(blocking=False):
            self._end_oldest()
            if not self._places.acquire(timeout=_YIELD_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- as above
        """Serve it, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self._places.release()

    def _end_oldest(self) -> None:
        with self._lock:
            if self._open:
                oldest, _ = self._open.popitem(last=False)
                with contextlib.suppress(OSError):  # it has ended by itself
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread, which waits for it, ends

    def handle_error(self, request: object, client_address: object) -> None:
        """Write nothing: connections that break off are no event."""


class _DualStackServer(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(WSGIRequestHandler):
    timeout = _IDLE_SECONDS

    def log_message(self, *_: object) -> None:
        """Write nothing: a scrape every few seconds is no event."""

"""The server of the API: uvicorn with connection limits and a graceful shutdown behind a balancer."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from tequipy_api.app import create_app
from tequipy_api.edge import Edge, connection_limit
from tequipy_api.protocol import EdgeProtocol
from tequipy_api.settings import ApiSettings
from tequipy_api.start_check import refuse_unusable_keys

_SWEEP_SECONDS: Final = 0.1
"""The interval of uvicorn's `on_tick`, which is not called during the shutdown."""


class DrainingServer(uvicorn.Server):
    """Shuts down in three steps, so that a rolling restart loses no request.

    After SIGTERM, `drain` makes readiness respond 503, and all requests are served for another `drain_period` seconds,
    in which balancers notice it. Then uvicorn shuts down: it accepts no new connections, finishes requests in progress,
    and ends the app's lifespan. SIGINT, which comes from a terminal, skips the first step. A second signal ends the
    process at once.
    """

    def __init__(self, config: uvicorn.Config, edge: Edge, *, drain: Callable[[], None], drain_period: float) -> None:
        super().__init__(config)
        self.server_state = self._edge = edge
        self._drain = drain
        self._drain_period = drain_period
        self._serve_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown; Python calls this in the main thread between two callbacks of the event loop."""
        if self._serve_until is not None:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._drain()
        at_once = sig == signal.SIGINT or not self.started
        self._serve_until = time.monotonic() + (0 if at_once else self._drain_period)
        super().handle_exit(sig, frame)  # stores the signal, which finally ends the process
        self.should_exit = False  # `on_tick` sets it after the drain period

    async def on_tick(self, counter: int) -> bool:
        """Close connections that waited too long; return whether to close the listener. Called ten times a second."""
        self._edge.sweep()
        self.should_exit = self.should_exit or (self._serve_until is not None and time.monotonic() >= self._serve_until)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down like uvicorn, while connections that wait too long are still closed."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            await super().shutdown(sockets)
        finally:
            sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            self._edge.sweep()
            await asyncio.sleep(_SWEEP_SECONDS)


def serve(settings: ApiSettings, *, host: str, port: int) -> None:
    """Serve the API in this process until a signal ends it.

    Ends with status 78 if `server.max_connections` exceeds the number of files that the process may open.
    """
    try:
        max_connections = connection_limit(settings)
    except ValueError as error:
        sys.stderr.write(f"TEQUIPY_SERVER__MAX_CONNECTIONS: {error}\n")
        raise SystemExit(os.EX_CONFIG) from error
    app = create_app(settings)
    refuse_unusable_keys(settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        workers=1,  # explicit, because uvicorn would read WEB_CONCURRENCY
        loop="uvloop",
        http=EdgeProtocol,
        ws="none",
        lifespan="on",
        log_config=None,  # tequipy_observability configures logging and writes the access log
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        timeout_graceful_shutdown=settings.server.shutdown_timeout,
    )
    edge = Edge(settings.server, max_connections=max_connections, hsts=not settings.local, registry=app.state.registry)
    # Excludes all present objects from garbage collection, because they live as long as the process. Each full
    # collection would otherwise visit 150,000 objects and block all requests for 110 ms. A collection before it would
    # find next to nothing, but take 100 ms of the start.
    gc.freeze()
    gc.enable()
    with contextlib.suppress(KeyboardInterrupt):  # raised for SIGINT at the end of the shutdown
        DrainingServer(config, edge, drain=app.state.readiness.drain, drain_period=settings.server.drain_period).run()

"""The server that runs the API: uvicorn, ending in the order that a balancer needs."""

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
"""As often as uvicorn calls `on_tick`, which it does no longer once it ends."""


class DrainingServer(uvicorn.Server):
    """Ends in three steps, so that a rolling restart loses no request.

    SIGTERM: `drain` is called, which has readiness answer 503, and everything is served for another `drain_period`
    seconds: balancers take that long to notice, and what they send meanwhile finds the listener open. Then uvicorn's
    own end: no new connections, requests in flight finish, the app's lifespan closes what it opened. SIGINT skips the
    first step, for a person at a terminal is no balancer. A second signal ends the process where it stands.
    """

    def __init__(self, config: uvicorn.Config, edge: Edge, *, drain: Callable[[], None], drain_period: float) -> None:
        super().__init__(config)
        self.server_state = self._edge = edge
        self._drain = drain
        self._drain_period = drain_period
        self._serve_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; Python calls it between two steps of the event loop's thread."""
        if self._serve_until is not None:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._drain()
        at_once = sig == signal.SIGINT or not self.started
        self._serve_until = time.monotonic() + (0 if at_once else self._drain_period)
        super().handle_exit(sig, frame)  # remembers the signal: in the end the process dies of it
        self.should_exit = False  # not yet: `on_tick` decides

    async def on_tick(self, counter: int) -> bool:
        """End connections that wait too long, and tell whether to close the listener; called ten times a second."""
        self._edge.sweep()
        self.should_exit = self.should_exit or (self._serve_until is not None and time.monotonic() >= self._serve_until)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does; meanwhile connections that wait too long are ended as before."""
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
    """Serve the API until a signal ends it; one process.

    Ends with status 78 when `server.max_connections` is more than the process may open files for.
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
        workers=1,  # said, for uvicorn would read WEB_CONCURRENCY
        loop="uvloop",
        http=EdgeProtocol,
        ws="none",
        lifespan="on",
        log_config=None,  # observability owns the logs, and the access log with them
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        timeout_graceful_shutdown=settings.server.shutdown_timeout,
    )
    edge = Edge(settings.server, max_connections=max_connections, hsts=not settings.local, registry=app.state.registry)
    # What there is now lives as long as the process: to go through it all again (150,000 objects, 110 ms) in each full
    # collection would stop every request for nothing.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):  # what SIGINT turns into at the very end
        DrainingServer(config, edge, drain=app.state.readiness.drain, drain_period=settings.server.drain_period).run()

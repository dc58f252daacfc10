"""Token and account answers stay out of every cache, errors included (RFC 6749, section 5.1)."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class NoStore:
    """Pure ASGI middleware: answers below `prefix` carry `Cache-Control: no-store`.

    A middleware and not a dependency, for 404, 405, 415 and 422 are answered before any dependency runs.
    """

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, marking the answer when the path is covered."""

        async def send_no_store(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        covered = scope["type"] == "http" and f"{scope['path']}/".startswith(f"{self._prefix}/")
        await self._app(scope, receive, send_no_store if covered else send)

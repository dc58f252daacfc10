"""Token and account answers stay out of every cache, errors included (RFC 6749, section 5.1)."""

from collections.abc import Set as AbstractSet

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import RouteTable


class NoStore:
    """Pure ASGI middleware: answers of the routes of these endpoints carry `Cache-Control: no-store`.

    A middleware and not a dependency, for 405, 415 and 422 are answered before any dependency runs. Errors that no
    route answers carry it anyway: they are problem documents.
    """

    def __init__(self, app: ASGIApp, *, routes: RouteTable, endpoints: AbstractSet[object]) -> None:
        self._app = app
        self._routes = routes
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, marking the answer when the route is one of them."""

        async def send_no_store(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        covered = scope["type"] == "http" and self._routes.match(scope).endpoint in self._endpoints
        await self._app(scope, receive, send_no_store if covered else send)

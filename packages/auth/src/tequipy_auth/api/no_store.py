"""Middleware that prevents caching of token and account responses, including errors (RFC 6749, section 5.1)."""

from collections.abc import Set as AbstractSet

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import RouteTable


class NoStore:
    """Pure ASGI middleware that sets `Cache-Control: no-store` on the responses of the given endpoints.

    It is a middleware and not a dependency, because 405, 415 and 422 are sent before any dependency runs. Errors
    without a route have the header anyway, because they are problem documents.
    """

    def __init__(self, app: ASGIApp, *, routes: RouteTable, endpoints: AbstractSet[object]) -> None:
        self._app = app
        self._routes = routes
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, and set the header if the request's route is one of the endpoints."""

        async def send_no_store(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        covered = scope["type"] == "http" and self._routes.match(scope).endpoint in self._endpoints
        await self._app(scope, receive, send_no_store if covered else send)

"""The template of the route that served a request, with every include prefix."""

from collections.abc import Iterable
from typing import Final

from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

UNMATCHED: Final = "__unmatched__"


class RouteTemplates:
    """Finds templates; since FastAPI 0.137 the route in the scope has lost the prefixes it was included with."""

    def __init__(self, routes: list[BaseRoute]) -> None:
        self._routes = routes
        self._known = -1
        self._contexts: dict[int, list[RouteContext]] = {}

    def of(self, scope: Scope) -> str:
        """Return the template of the route that served the request, `__unmatched__` when none did."""
        route = scope.get("route")
        if route is None:
            return UNMATCHED
        if len(self._routes) != self._known:  # routes may be added until the first request, and by tests after it
            self._read()
        contexts = self._contexts.get(id(route), [])
        if len(contexts) > 1:  # one router, included twice
            contexts = [context for context in contexts if context.matches(scope)[0] is not Match.NONE]
        return str(contexts[0].path) if contexts else UNMATCHED

    def _read(self) -> None:
        contexts: Iterable[RouteContext] = iter_route_contexts(self._routes)
        self._contexts = {}
        for context in contexts:
            self._contexts.setdefault(id(context.original_route), []).append(context)
        self._known = len(self._routes)

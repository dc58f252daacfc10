"""The template of the route that served a request, with every include prefix."""

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
        self._templates: dict[int, str] = {}
        self._ambiguous: dict[int, list[RouteContext]] = {}

    def of(self, scope: Scope) -> str:
        """Return the template of the route that served the request, `__unmatched__` when none did."""
        route = scope.get("route")
        if route is None:
            return UNMATCHED
        if len(self._routes) != self._known:  # routes may be added until the first request, and by tests after it
            self._read()
        template = self._templates.get(id(route))
        if template is not None:
            return template
        for context in self._ambiguous.get(id(route), ()):
            if context.matches(scope)[0] is not Match.NONE:
                return str(context.path)
        return UNMATCHED

    def _read(self) -> None:
        contexts: dict[int, list[RouteContext]] = {}
        for context in iter_route_contexts(self._routes):
            contexts.setdefault(id(context.original_route), []).append(context)
        self._templates = {route: str(found[0].path) for route, found in contexts.items() if len(found) == 1}
        # The routes of a router that was included more than once.
        self._ambiguous = {route: found for route, found in contexts.items() if len(found) > 1}
        self._known = len(self._routes)

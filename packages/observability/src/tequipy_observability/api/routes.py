"""The route table: finds the route of a request once, by the router's rules, for all components that depend on it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from re import Pattern
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette._utils import get_route_path
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import Scope

UNMATCHED: Final = "__unmatched__"

_SCOPE_KEY: Final = "tequipy.route"
_TABLE_KEY: Final = "tequipy.route_table"
_SAFE_IN_QUERY: Final = "%/:?#[]@!$&'()*+,;="


@dataclass(frozen=True, slots=True, eq=False)
class MatchedRoute:
    """A route of the app; features attach settings to its `endpoint`, independently of path prefixes."""

    template: str
    """Its path with all include prefixes and parameter names; `__unmatched__` if no route matches."""
    endpoint: object
    """The function that serves it; None for a mounted app and for an endpoint that is not hashable."""


NO_ROUTE: Final = MatchedRoute(UNMATCHED, None)


@dataclass(frozen=True, slots=True, eq=False)
class RouteEntry:
    """A route with what is needed to match it: pattern and methods, or, for other kinds of routes, its own method."""

    route: MatchedRoute
    context: RouteContext
    pattern: Pattern[str] | None
    methods: frozenset[str] | None
    literal: bool
    head: str
    """What each path that it matches begins with."""

    def match(self, scope: Scope, path: str) -> Match:
        """Match like the router, but without converting parameters, which may fail."""
        if self.pattern is None:
            match: Match = self.context.matches(scope)[0]
            return match
        if not self.pattern.match(path):
            return Match.NONE
        return Match.FULL if self.methods is None or scope["method"] in self.methods else Match.PARTIAL


class RouteTable:
    """The routes of an app in the order in which its router tries them.

    Literal paths are looked up in a dictionary whose size is the number of routes; other paths are matched against one
    pattern after another. Routes may be added until the first request (tests may add them later).
    """

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        self._known = -1
        self._entries: list[RouteEntry] = []
        self._patterns: list[RouteEntry] = []
        self._literals: dict[str, list[RouteEntry]] = {}
        self._exact: dict[tuple[str, str], MatchedRoute] = {}
        """The routes of literal paths by method and path, as far as nothing else of a request decides."""

    @property
    def entries(self) -> list[RouteEntry]:
        """All routes in order; another list after routes have been added."""
        self._refresh()
        return self._entries

    def match(self, scope: Scope) -> MatchedRoute:
        """Return the route that serves an HTTP request or responds 405; else `NO_ROUTE`."""
        path = get_route_path(scope)
        self._refresh()
        return self._exact.get((scope["method"], path)) or self._find(scope, path)

    def methods_at(self, scope: Scope) -> set[str]:
        """Return the methods of all routes at this path."""
        path = get_route_path(scope)
        found = (entry.methods for entry in self._candidates(path) if entry.match(scope, path) is not Match.NONE)
        return {method for methods in found for method in methods or ()}

    def slash_redirect(self, scope: Scope) -> str | None:
        """Return a relative redirect for a path that is only served with, or without, a trailing slash, or None.

        The reference is relative to the last segment of the path (RFC 3986, section 4.2). It names no host, and works
        behind a proxy that strips a prefix.
        """
        path: str = scope["path"]
        raw: bytes | None = scope.get("raw_path")
        if raw is not None and raw.count(b"/") != path.count("/"):
            return None  # a slash was sent as %2F, so a client counts other segments than the server
        if path.endswith("//"):
            return None  # clients disagree about empty segments: browsers count them, Python's urljoin does not
        without = path.removesuffix("/")
        *parents, last = without.split("/")
        other = {**scope, "path": without if path.endswith("/") else f"{path}/"}
        if not last or not {".", ".."}.isdisjoint([*parents, last]):
            return None  # a client resolves dot segments before it resolves the reference
        if self._find(other, get_route_path(other)) is NO_ROUTE:
            return None
        name = quote(last, safe="")
        location = f"../{name}" if path.endswith("/") else f"./{name}/"
        query: bytes = scope.get("query_string", b"")
        return f"{location}?{quote(query, safe=_SAFE_IN_QUERY)}" if query else location

    def _find(self, scope: Scope, path: str) -> MatchedRoute:
        partial = NO_ROUTE
        for entry in self._candidates(path):
            match = entry.match(scope, path)
            if match is Match.FULL:
                return entry.route
            if match is Match.PARTIAL and partial is NO_ROUTE:
                partial = entry.route
        return partial

    def _candidates(self, path: str) -> list[RouteEntry]:
        self._refresh()
        # `$` in a pattern also matches before a line feed at the end.
        return self._literals.get(path) or [
            entry
            for entry in (self._entries if path.endswith("\n") else self._patterns)
            if path.startswith(entry.head)  # several times faster than a pattern that does not match
        ]

    def _refresh(self) -> None:
        if len(self._router.routes) != self._known:
            self._read()

    def _read(self) -> None:
        self._entries = list(_entries(self._router.routes))
        self._patterns = [entry for entry in self._entries if not entry.literal]
        self._literals = {
            path: [entry for entry in self._entries if entry.pattern is None or entry.pattern.match(path)]
            for path in (entry.route.template for entry in self._entries if entry.literal)
        }
        self._exact = {
            (method, path): next(entry.route for entry in entries if entry.methods is None or method in entry.methods)
            for path, entries in self._literals.items()
            if all(entry.pattern is not None for entry in entries)
            for method in {method for entry in entries for method in entry.methods or ()}
        }
        self._known = len(self._router.routes)


def route_table(app: FastAPI) -> RouteTable:
    """Return the route table of an app; each app has one."""
    # Not in `app.state`, whose attributes are slow: this is called for each request.
    table: RouteTable | None = vars(app).get(_TABLE_KEY)
    if table is None:
        table = vars(app)[_TABLE_KEY] = RouteTable(app.router)
    return table


def matched_route(scope: Scope) -> MatchedRoute:
    """Return the route of a request, for the middleware of the app that serves it; it is matched once."""
    app: FastAPI = scope["app"]
    remembered: tuple[FastAPI, str, str, str, MatchedRoute] | None = scope.get(_SCOPE_KEY)
    path, method, root_path = scope["path"], scope["method"], scope.get("root_path", "")
    if remembered is not None:
        host, its_path, its_method, its_root_path, route = remembered
        # Another app is one which mounts this one; another path or method was set by a middleware meanwhile.
        if host is app and its_path == path and its_method == method and its_root_path == root_path:
            return route
    route = route_table(app).match(scope)
    scope[_SCOPE_KEY] = app, path, method, root_path, route
    return route


def endpoints_of(router: APIRouter) -> list[object]:
    """Return the endpoints of all routes of a router, included routers among them."""
    return [context.endpoint for context in iter_route_contexts(router.routes)]


def polled_endpoints(app: FastAPI) -> set[object]:
    """Return the endpoints that were passed to `wire_polled_routes`."""
    if not hasattr(app.state, "polled_endpoints"):
        app.state.polled_endpoints = set()
    polled: set[object] = app.state.polled_endpoints
    return polled


def wire_polled_routes(app: FastAPI, *endpoints: object) -> None:
    """Declare routes that machines poll: their access events have level debug, and rate limits skip them."""
    polled_endpoints(app).update(endpoints)


def _entries(routes: Iterable[BaseRoute]) -> Iterator[RouteEntry]:
    for context in iter_route_contexts(list(routes)):
        original = context.original_route
        if isinstance(original, WebSocketRoute):
            continue
        by_pattern = isinstance(original, Route | Mount)
        methods = context.methods if isinstance(original, Route) else None
        template = context.path_format if isinstance(original, Route) else context.path  # without convertors
        yield RouteEntry(
            route=MatchedRoute(template or UNMATCHED, _hashable(context.endpoint)),
            context=context,
            pattern=context.path_regex if by_pattern else None,
            methods=frozenset(methods) if methods else None,
            literal=isinstance(original, Route) and not context.param_convertors,
            head=(template or "").partition("{")[0] if by_pattern else "",
        )


def _hashable(endpoint: object) -> object:
    try:
        hash(endpoint)
    except TypeError:  # a callable object that compares by value; no settings can be attached to it
        return None
    return endpoint

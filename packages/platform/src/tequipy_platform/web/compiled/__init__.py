"""Compiled routes: dependencies and answers of simple routes, worked out once and not for each request."""

from tequipy_platform.web.compiled.serve import CompiledRoutes, RouteReport, route_reports

__all__ = ["CompiledRoutes", "RouteReport", "route_reports"]

"""The HTTP API of reporting. Needs the extra `api`."""

from tequipy_observability import needs_extra

with needs_extra("tequipy-reporting[api]"):
    from fastapi import FastAPI

    from tequipy_platform.web import wire_no_store
    from tequipy_reporting.api import routes
    from tequipy_reporting.domain.reporting import Reporting

__all__ = ["wire_reporting"]


def wire_reporting(app: FastAPI, reporting: Reporting, *, prefix: str = "/api/v1/reports") -> None:
    """Attach reporting's routes under `prefix`.

    The app needs `wire_auth` with an `Auth` that knows `tequipy_reporting.PERMISSIONS`, and `NoStore` and problem
    documents (`wire_errors`, both of `tequipy_platform.web`).
    """
    app.state.reporting = reporting
    app.include_router(routes.router, prefix=prefix)
    wire_no_store(app, routes.request_report, routes.list_reports)

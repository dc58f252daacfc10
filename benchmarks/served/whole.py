"""The shipped API with one more feature, which is written as every feature is: plain FastAPI and a bearer token.

The shipped app has no route that validates a JSON body and stores nothing, and a stored row would hide the HTTP path.
"""

import sys
from pathlib import Path

import click
from fastapi import FastAPI

sys.path.append(str(Path(__file__).parents[1] / "peers"))  # the bodies of all servers

from models import Order, OrderRequest, order

from tequipy_api import app as composition
from tequipy_api import server
from tequipy_api.settings import ApiSettings
from tequipy_auth.api import CurrentPrincipal
from tequipy_platform.settings import load_settings
from tequipy_reporting import Reporting
from tequipy_reporting.api import wire_reporting


def wire_orders(app: FastAPI) -> None:
    """Attach the route of the feature."""

    @app.post("/api/v1/orders", status_code=201)
    async def create_order(principal: CurrentPrincipal, body: OrderRequest) -> Order:  # noqa: ARG001 -- it is required
        """Return an order for a validated body."""
        return order(body)


def wire_reporting_and_orders(app: FastAPI, reporting: Reporting) -> None:
    """Wire the last feature of the shipped app, and the one of this benchmark."""
    wire_reporting(app, reporting)
    wire_orders(app)


@click.command()
@click.option("--port", type=int, required=True)
def main(port: int) -> None:
    """Serve the API as `tequipy-api serve` does."""
    # `create_app` is a table of contents without hooks, so the benchmark puts its feature in place of the last line.
    setattr(composition, wire_reporting.__name__, wire_reporting_and_orders)
    server.serve(load_settings(ApiSettings), host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()

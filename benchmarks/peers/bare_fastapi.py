"""Bare FastAPI: typed routes without authentication, middleware, logs and metrics. The base of all ratios.

`TELEMETRY=off` switches off FastAPI's own telemetry, which costs time although nothing exports it.
"""

import os
from typing import Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from models import Health, Me, Order, OrderRequest, Product, account, order

OFF: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
app = FastAPI(telemetry=OFF if os.environ.get("TELEMETRY") == "off" else None)


@app.get("/api/v1/health")
async def health() -> Health:
    """Return a constant."""
    return Health()


@app.get("/api/v1/auth/me")
async def me() -> Me:
    """Return a constant account without asking who the caller is."""
    return account()


@app.post("/api/v1/orders", status_code=201)
async def create_order(body: OrderRequest) -> Order:
    """Return an order for a validated body."""
    return order(body)


@app.get("/api/v1/products/{number}")
async def product(number: int) -> Product:
    """Return a constant product, which nothing caches or counts."""
    return Product(number=number, name="pen", price=120)

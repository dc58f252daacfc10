"""aiocache with Redis on a typed route."""

import os
from urllib.parse import urlsplit

from aiocache import Cache, cached  # type: ignore[import-untyped]  # -- it ships no types
from aiocache.serializers import JsonSerializer  # type: ignore[import-untyped]  # -- as above
from fastapi import FastAPI
from models import Product

_address = urlsplit(os.environ["CACHE_URL"])
app = FastAPI()


@cached(
    ttl=600,
    cache=Cache.REDIS,
    key_builder=lambda _, number: f"product:{number}",
    serializer=JsonSerializer(),
    endpoint=_address.hostname,
    port=_address.port,
    password=_address.password,
    namespace="bench",
)
async def load(number: int) -> dict[str, str | int]:
    """Return a row of the database."""
    return {"number": number, "name": "pen", "price": 120}


@app.get("/api/v1/products/{number}")
async def product(number: int) -> Product:
    """Return a cached product."""
    return Product.model_validate(await load(number))

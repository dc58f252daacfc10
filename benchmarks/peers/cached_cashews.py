"""cashews on a typed route; `CACHE_URL` is its backend, with `client_side=1` for its copy in this process's memory."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cashews import cache
from fastapi import FastAPI
from models import Product


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the cache and close it."""
    await cache.init()
    yield
    await cache.close()


cache.setup(os.environ["CACHE_URL"], client_side=os.environ["CLIENT_SIDE"] == "1")
app = FastAPI(lifespan=lifespan)


@cache(ttl="10m", key="product:{number}")
async def load(number: int) -> dict[str, str | int]:
    """Return a row of the database."""
    return {"number": number, "name": "pen", "price": 120}


@app.get("/api/v1/products/{number}")
async def product(number: int) -> Product:
    """Return a cached product."""
    return Product.model_validate(await load(number))

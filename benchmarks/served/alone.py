"""One package of this project in a foreign FastAPI app: `limited` has its rate limits, `cached` its cache."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.middleware import Middleware

sys.path.append(str(Path(__file__).parents[1] / "peers"))  # the bodies of all servers

from models import Product

from tequipy_caching import CachePolicy
from tequipy_caching.api import LimitRates, RateLimitSettings
from tequipy_caching.wiring import CacheSettings, LimiterSettings, build_cache, build_rate_limiter
from tequipy_observability.api import Pipeline

registry = CollectorRegistry()
settings = CacheSettings(url=SecretStr(os.environ["CACHE_URL"]), policies={"products": CachePolicy(ttl=600)})
limiter = build_rate_limiter(settings, LimiterSettings(), registry=registry)
cache = build_cache(settings, registry=registry)
products = cache.cache("products", dict[str, str | int])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the connections, and close them."""
    async with cache, limiter:
        yield


limited = FastAPI(
    lifespan=lifespan,
    middleware=[Middleware(Pipeline, [LimitRates(limiter, RateLimitSettings(default="99999/1"))])],
)
cached = FastAPI(lifespan=lifespan)


@limited.get("/api/v1/products/{number}")
async def constant_product(number: int) -> Product:
    """Return a constant product."""
    return Product(number=number, name="pen", price=120)


@products.cached("product:{number}")
async def load(number: int) -> dict[str, str | int]:
    """Return a row of the database."""
    return {"number": number, "name": "pen", "price": 120}


@cached.get("/api/v1/products/{number}")
async def cached_product(number: int) -> Product:
    """Return a cached product."""
    return Product.model_validate(await load(number))

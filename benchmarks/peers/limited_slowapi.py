"""slowapi on a typed route; `STORAGE` is its storage: nothing (its default, this process's memory) or a Redis URL."""

import os

from fastapi import FastAPI, Request, Response
from models import Product
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address

limiter = Limiter(key_func=get_remote_address, headers_enabled=True, storage_uri=os.environ.get("STORAGE"))
app = FastAPI()
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)


@app.get("/api/v1/products/{number}")
@limiter.limit("99999/second")
async def product(request: Request, response: Response, number: int) -> Product:  # noqa: ARG001 -- slowapi reads them
    """Return a constant product."""
    return Product(number=number, name="pen", price=120)

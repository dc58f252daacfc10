"""An app with auth and the stages that limit requests, as the shipped app has them."""

from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_auth.api import wire_auth
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_caching.api import LimitRates, RateLimitSettings
from tequipy_caching.testing import MemoryRateLimiter
from tequipy_platform.web import CatchErrors, LimitBodies, NoStore, Pipeline, wire_errors

from .routes import AUTH


def build_limited_app(work: MemoryAuthUnitOfWork, *, prefix: str = AUTH) -> FastAPI:
    """Return the app, with auth in memory below a prefix."""
    rates = LimitRates(MemoryRateLimiter(), RateLimitSettings())
    app = FastAPI(middleware=[Middleware(Pipeline, [NoStore(), rates, LimitBodies(), CatchErrors()])])
    wire_errors(app)
    wire_auth(app, build_fake_auth(work), prefix=prefix)
    return app

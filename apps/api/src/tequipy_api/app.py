"""Composition of the API: all parts of the process in reading order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_api.catalogue import PERMISSIONS
from tequipy_api.description import describe
from tequipy_api.histories import HISTORIES
from tequipy_api.settings import ApiSettings
from tequipy_auth.api import wire_auth
from tequipy_auth.wiring import build_auth
from tequipy_caching import CacheManager
from tequipy_caching.api import LimitRates, wire_rate_limits
from tequipy_caching.wiring import build_cache, build_rate_limiter
from tequipy_observability.api import ObserveRequests, TraceRequests, wire_observability
from tequipy_observability.wiring import configure_observability
from tequipy_platform import HealthCheck, RefusesWrites
from tequipy_platform.database import build_database
from tequipy_platform.database.migrations import build_schema_check
from tequipy_platform.http import build_http_clients
from tequipy_platform.settings import variable_of
from tequipy_platform.storage import build_storage
from tequipy_platform.web import (
    Api,
    CatchErrors,
    CloseConnections,
    CompiledRoutes,
    Cors,
    LimitBodies,
    NoStore,
    Pipeline,
    Readiness,
    SecurityHeaders,
    Stage,
    wire_docs,
    wire_errors,
    wire_health,
)
from tequipy_reporting.api import wire_reporting
from tequipy_reporting.wiring import build_personal_data, build_reporting


def create_app(settings: ApiSettings) -> FastAPI:
    """Compose the API; connections are opened when its lifespan begins."""
    observability = configure_observability(
        settings.observability,
        service="api",
        environment=settings.environment,
        version=settings.app_version,
        metrics_port_name=variable_of(ApiSettings, ("observability", "metrics_port")),
    )
    metrics = observability.registry
    database = build_database(settings.database, registry=metrics, app_version=settings.app_version)
    cache = build_cache(settings.cache, registry=metrics)
    limiter = build_rate_limiter(settings.cache, settings.limiter, registry=metrics)
    storage = build_storage(settings.storage)
    http = build_http_clients(
        settings.http, app_name=settings.app_name, app_version=settings.app_version, registry=metrics
    )
    origins_setting = variable_of(ApiSettings, ("allowed_origins",))
    auth = build_auth(
        settings.auth,
        environment=settings.environment,
        public_url=settings.public_url,
        allowed_origins=settings.origins,
        origins_setting=origins_setting,
        database=database,
        cache=cache,
        http=http,
        permissions=PERMISSIONS,
        personal_data=[build_personal_data(database)],
        registry=metrics,
    )
    reporting = build_reporting(
        settings.reporting,
        public_url=settings.public_url,
        database=database,
        auth=auth,
        storage=storage,
        registry=metrics,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with observability, database, cache, limiter, storage, http, auth:
            yield

    readiness = Readiness(
        [
            HealthCheck("database", build_schema_check(database, HISTORIES)),
            HealthCheck("redis", partial(_check_cache, cache), required=False),
            HealthCheck("storage", storage.ping),
            HealthCheck("signing_keys", auth.access_tokens.check, only_when_down=True),
        ],
        report_up=observability.report_up,
    )
    stages: list[Stage] = [  # outermost first
        ObserveRequests(metrics),
        TraceRequests(),
        CloseConnections(readiness),
        SecurityHeaders(hsts=not settings.local),
        NoStore(),
        Cors(settings.origins, setting=origins_setting),
        LimitRates(limiter, settings.rate_limits),
        LimitBodies(),
        CatchErrors(),
    ]
    app = Api(
        **describe(settings),
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,  # short operation ids, such as get_me
        # FastAPI's own docs pages load scripts from a third party; wire_docs replaces them.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        middleware=[Middleware(Pipeline, stages), Middleware(CompiledRoutes)],
    )
    app.state.registry = metrics
    wire_health(app, readiness)
    wire_observability(app, observability)
    wire_errors(app)
    if settings.docs:
        wire_docs(app, keep_tokens=settings.local)
    wire_auth(app, auth)
    wire_reporting(app, reporting)
    wire_rate_limits(app)  # last, because it documents limits in the responses that the others add
    return app


async def _check_cache(cache: CacheManager) -> None:
    """Raise when Redis does not answer, and `RefusesWrites` when it answers but refuses writes."""
    await cache.ping()
    health = cache.health()
    if health.l2 == "refusing":
        raise RefusesWrites(health.reason)

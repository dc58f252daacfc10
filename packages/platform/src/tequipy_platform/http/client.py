"""The clients of the four profiles."""

import asyncio
import random
import re
import ssl
from collections.abc import Callable
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self

import httpx
from prometheus_client import CollectorRegistry

from tequipy_platform.http.body import ACCEPT_ENCODING
from tequipy_platform.http.connections import PooledTransport
from tequipy_platform.http.deadline import Call
from tequipy_platform.http.metrics import HttpClientMetrics
from tequipy_platform.http.settings import HttpProfile, HttpSettings
from tequipy_platform.http.transport import ResilientTransport

TransportFactory = Callable[[str], httpx.AsyncBaseTransport]
"""Returns the transport that a profile, named by its attribute, sends its attempts with."""


class ProfileClient(httpx.AsyncClient):
    """The client of one profile: httpx's, with one deadline for each call.

    A call may set `extensions={"total": 1.0}` for a shorter deadline (seconds), and `"max_response_bytes"` for another
    limit of the body.
    """

    def __init__(self, profile: HttpProfile, *, max_response_bytes: int, **options: Any) -> None:  # noqa: ANN401 -- those of httpx
        super().__init__(**options)
        self._total = profile.total
        self._max_response_bytes = max_response_bytes

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:  # noqa: ANN401 -- those of httpx
        """Send a request as httpx does; raises `DeadlineExceeded` when the total time has passed."""
        if options.get("follow_redirects") is True and not self.follow_redirects:
            raise ValueError("Redirects are followed by the default profile alone.")
        total = min(self._total, request.extensions.get("total", self._total))
        call = Call(
            deadline=asyncio.get_running_loop().time() + total,
            streamed=stream,
            max_bytes=request.extensions.get("max_response_bytes", self._max_response_bytes),
        )
        call.attach(request)
        async with call.limited():
            return await super().send(request, stream=stream, **options)


class HttpClients:
    """One client for each profile, made when it is first used; close them by leaving the async context.

    `default` alone follows redirects. `webhooks` is for addresses that users give.
    """

    def __init__(
        self,
        settings: HttpSettings,
        *,
        user_agent: str,
        registry: CollectorRegistry | None = None,
        transports: TransportFactory | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._user_agent = user_agent
        self._metrics = HttpClientMetrics(registry)
        self._transports = transports or self._build_transport
        self._jitter = jitter
        self._built: list[ProfileClient] = []

    @cached_property
    def default(self) -> httpx.AsyncClient:
        """The client for services that the operator has chosen."""
        return self._build("default", self._settings.default, follow_redirects=True)

    @cached_property
    def llm(self) -> httpx.AsyncClient:
        """The client for answers that take long, as those of a large language model do."""
        return self._build("llm", self._settings.llm)

    @cached_property
    def health(self) -> httpx.AsyncClient:
        """The client for health checks."""
        return self._build("health", self._settings.health)

    @cached_property
    def webhooks(self) -> httpx.AsyncClient:
        """The client for addresses that users give; it connects to global addresses alone."""
        return self._build("webhooks", self._settings.webhooks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for client in self._built:
            await client.aclose()

    def _build(self, name: str, profile: HttpProfile, *, follow_redirects: bool = False) -> ProfileClient:
        transport = ResilientTransport(
            self._transports(name),
            profile=name,
            attempts=self._settings.attempts,
            metrics=self._metrics,
            named_hosts=name != "webhooks",
            jitter=self._jitter,
        )
        client = ProfileClient(
            profile,
            max_response_bytes=self._settings.max_response_bytes,
            transport=transport,
            timeout=httpx.Timeout(profile.read, connect=profile.connect, pool=profile.connect),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": ACCEPT_ENCODING},
            # A client is shared by all users of the process, so it keeps no cookie of anybody.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=follow_redirects,
            trust_env=False,  # only apps read the environment
        )
        self._built.append(client)
        return client

    def _build_transport(self, name: str) -> httpx.AsyncBaseTransport:
        limits = httpx.Limits(
            max_connections=self._settings.max_connections,
            max_keepalive_connections=self._settings.max_keepalive_connections,
        )
        return PooledTransport(self._tls, limits, global_addresses=name == "webhooks")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The context of all profiles, because loading the certificates takes 10 ms."""
        if self._settings.ca_file is not None:
            return ssl.create_default_context(cafile=self._settings.ca_file)
        return httpx.create_ssl_context(trust_env=False)


_MAX_PRODUCT_LENGTH: Final = 64
_NOT_IN_TOKENS: Final = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")


def build_http_clients(
    settings: HttpSettings, *, app_name: str, app_version: str, registry: CollectorRegistry | None = None
) -> HttpClients:
    """Return the clients of a process, which introduce themselves as `app_name/app_version`.

    `registry` gets the metrics `http_client_*`.
    """
    return HttpClients(settings, user_agent=f"{_token(app_name)}/{_token(app_version)}", registry=registry)


def _token(text: str) -> str:
    """Return a text as a product of User-Agent (RFC 9110, section 10.1.5): other characters become hyphens."""
    return _NOT_IN_TOKENS.sub("-", text)[:_MAX_PRODUCT_LENGTH] or "-"

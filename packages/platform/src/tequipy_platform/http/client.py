"""The clients of the four profiles."""

import asyncio
import os
import random
import re
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import cache, cached_property
from http.cookiejar import CookieJar
from types import TracebackType
from typing import Any, Final, Self

import httpx
from idna import IDNAError
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

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:  # noqa: ANN401 -- those of httpx
        """Build a request as httpx does; raises `httpx.InvalidURL` for every text that is no URL."""
        try:
            url = httpx.URL(url)
        except UnicodeError as error:
            raise httpx.InvalidURL("The URL contains a character that cannot be sent.") from error
        try:
            return super().build_request(method, url, **options)
        except IDNAError as error:
            raise httpx.InvalidURL("The host of the URL is no valid name.") from error

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:  # noqa: ANN401 -- those of httpx
        """Send a request as httpx does; raises `DeadlineExceeded` when the total time has passed."""
        if options.get("follow_redirects") is True and not self.follow_redirects:
            raise ValueError("Redirects are followed by the default profile alone.")
        if request.url.userinfo:
            # httpx would use them too, but leave them in the URL, which representations of the request show.
            auth = options.get("auth", httpx.USE_CLIENT_DEFAULT)
            if self.auth is None and (auth is None or auth is httpx.USE_CLIENT_DEFAULT):
                options["auth"] = httpx.BasicAuth(request.url.username, request.url.password)
            request.url = request.url.copy_with(userinfo=b"")
        extensions = request.extensions
        call = Call(
            request,
            deadline=asyncio.get_running_loop().time() + min(self._total, extensions.get("total", self._total)),
            streamed=stream,
            max_bytes=extensions.get("max_response_bytes", self._max_response_bytes),
        )
        try:
            return await call.within(super().send(request, stream=stream, **options))
        except IDNAError as error:
            raise httpx.RemoteProtocolError("The redirect leads to no valid host.", request=request) from error


class _NoCookies(CookieJar):
    """Keeps no cookie of a response, because all users of the process share the client."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Keep nothing."""


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
        self._built: dict[str, ProfileClient] = {}
        self._process = os.getpid()

    @property
    def default(self) -> httpx.AsyncClient:
        """The client for services that the operator has chosen."""
        return self._client("default")

    @property
    def llm(self) -> httpx.AsyncClient:
        """The client for answers that take long, as those of a large language model do."""
        return self._client("llm")

    @property
    def health(self) -> httpx.AsyncClient:
        """The client for health checks."""
        return self._client("health")

    @property
    def webhooks(self) -> httpx.AsyncClient:
        """The client for addresses that users give; it connects to global addresses alone."""
        return self._client("webhooks")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        built, self._built = self._built, {}
        async with AsyncExitStack() as stack:
            for client in built.values():
                stack.push_async_callback(client.aclose)

    def _client(self, name: str) -> ProfileClient:
        if self._process != os.getpid():
            # The connections of the process that forked this one are not ours.
            self._process, self._built = os.getpid(), {}
        client = self._built.get(name)
        if client is None:
            client = self._built[name] = self._build(name)
        return client

    def _build(self, name: str) -> ProfileClient:
        profile: HttpProfile = getattr(self._settings, name)
        transport = ResilientTransport(
            self._transports(name),
            profile=name,
            attempts=self._settings.attempts,
            metrics=self._metrics,
            named_hosts=name != "webhooks",
            jitter=self._jitter,
        )
        return ProfileClient(
            profile,
            max_response_bytes=self._settings.max_response_bytes,
            transport=transport,
            timeout=httpx.Timeout(profile.read, connect=profile.connect, pool=profile.connect),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": ACCEPT_ENCODING},
            cookies=_NoCookies(),
            follow_redirects=name == "default",
            trust_env=False,  # only apps read the environment
        )

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
        return _public_authorities()


@cache
def _public_authorities() -> ssl.SSLContext:
    """Return the context with the public certificate authorities, which is loaded once in a process."""
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

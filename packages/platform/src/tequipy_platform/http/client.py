"""The client of one profile, on httpx."""

import asyncio
import ssl
from collections.abc import Callable
from functools import cache
from http.cookiejar import CookieJar
from typing import Any

import httpx
from idna import IDNAError

from tequipy_platform.http.body import ACCEPT_ENCODING
from tequipy_platform.http.connections import PooledTransport
from tequipy_platform.http.deadline import Call
from tequipy_platform.http.metrics import HttpClientMetrics
from tequipy_platform.http.settings import HttpProfile, HttpSettings
from tequipy_platform.http.transport import ResilientTransport


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


def build_client(
    settings: HttpSettings,
    name: str,
    transport: httpx.AsyncBaseTransport,
    *,
    user_agent: str,
    metrics: HttpClientMetrics,
    jitter: Callable[[], float],
) -> ProfileClient:
    """Return the client of the profile with this name, which sends its attempts with `transport`."""
    profile: HttpProfile = getattr(settings, name)
    resilient = ResilientTransport(
        transport,
        profile=name,
        attempts=settings.attempts,
        metrics=metrics,
        named_hosts=name != "webhooks",
        jitter=jitter,
    )
    return ProfileClient(
        profile,
        max_response_bytes=settings.max_response_bytes,
        transport=resilient,
        timeout=httpx.Timeout(profile.read, connect=profile.connect, pool=profile.connect),
        headers={"User-Agent": user_agent, "Accept-Encoding": ACCEPT_ENCODING},
        cookies=_NoCookies(),
        follow_redirects=name == "default",
        trust_env=False,  # only apps read the environment
    )


def build_transport(settings: HttpSettings, name: str, tls: ssl.SSLContext) -> PooledTransport:
    """Return the transport of the profile with this name."""
    limits = httpx.Limits(
        max_connections=settings.max_connections,
        max_keepalive_connections=settings.max_keepalive_connections,
    )
    return PooledTransport(tls, limits, global_addresses=name == "webhooks")


@cache
def public_authorities() -> ssl.SSLContext:
    """Return the context with the public certificate authorities, which is loaded once in a process."""
    return httpx.create_ssl_context(trust_env=False)

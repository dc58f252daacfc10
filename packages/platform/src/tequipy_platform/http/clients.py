"""The clients of the four profiles.

httpx and its HTTP/2 are imported with the first client, because most processes call no other service; they take 4 MiB.
"""

import os
import random
import re
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from prometheus_client import CollectorRegistry

from tequipy_platform.http.metrics import HttpClientMetrics
from tequipy_platform.http.settings import HttpSettings

if TYPE_CHECKING:
    import httpx

    from tequipy_platform.http.client import ProfileClient

    TransportFactory = Callable[[str], httpx.AsyncBaseTransport]
    """Returns the transport that a profile, named by its attribute, sends its attempts with."""


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
        transports: "TransportFactory | None" = None,
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
    def default(self) -> "httpx.AsyncClient":
        """The client for services that the operator has chosen."""
        return self._client("default")

    @property
    def llm(self) -> "httpx.AsyncClient":
        """The client for answers that take long, as those of a large language model do."""
        return self._client("llm")

    @property
    def health(self) -> "httpx.AsyncClient":
        """The client for health checks."""
        return self._client("health")

    @property
    def webhooks(self) -> "httpx.AsyncClient":
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

    def _client(self, name: str) -> "ProfileClient":
        if self._process != os.getpid():
            # The connections of the process that forked this one are not ours.
            self._process, self._built = os.getpid(), {}
        client = self._built.get(name)
        if client is None:
            client = self._built[name] = self._build(name)
        return client

    def _build(self, name: str) -> "ProfileClient":
        from tequipy_platform.http.client import build_client  # noqa: PLC0415 -- as the module says

        return build_client(
            self._settings,
            name,
            self._transports(name),
            user_agent=self._user_agent,
            metrics=self._metrics,
            jitter=self._jitter,
        )

    def _build_transport(self, name: str) -> "httpx.AsyncBaseTransport":
        from tequipy_platform.http.client import build_transport  # noqa: PLC0415 -- as the module says

        return build_transport(self._settings, name, self._tls)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The context of all profiles, because loading the certificates takes 10 ms."""
        from tequipy_platform.http.client import public_authorities  # noqa: PLC0415 -- as the module says

        if self._settings.ca_file is not None:
            return ssl.create_default_context(cafile=self._settings.ca_file)
        return public_authorities()


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

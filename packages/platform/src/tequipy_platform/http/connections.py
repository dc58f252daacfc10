"""The connections of a client: the pool of httpcore behind a transport of httpx."""

import ssl
from types import TracebackType

import httpcore
import httpx

from tequipy_platform.http.addresses import GlobalAddresses
from tequipy_platform.http.pool import ConnectionPool


class PooledTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over a pool of our own, which can be limited to global addresses."""

    def __init__(self, tls: ssl.SSLContext, limits: httpx.Limits, *, global_addresses: bool) -> None:
        super().__init__(verify=tls, trust_env=False)
        if not isinstance(getattr(self, "_pool", None), httpcore.AsyncConnectionPool):
            # Without this, a new httpx would connect to any address.
            raise TypeError("httpx does not keep its pool as expected: use the versions that pyproject.toml allows")
        self._addresses = GlobalAddresses() if global_addresses else None
        self._pool = ConnectionPool(
            ssl_context=tls,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            http1=True,
            http2=True,
            network_backend=self._addresses,
        )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await super().aclose()
        if self._addresses is not None:
            self._addresses.close()

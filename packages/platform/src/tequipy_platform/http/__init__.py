"""Outgoing HTTP calls: one httpx client for each profile, with deadline, retries and circuit breaker.

httpx is imported with the first client, or with an error of this module.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tequipy_observability import needs_extra

with needs_extra("tequipy-platform[http]", "h2", "httpcore2", "httpx"):
    from tequipy_platform.http.clients import HttpClients, build_http_clients
    from tequipy_platform.http.settings import HttpProfile, HttpSettings

if TYPE_CHECKING:
    from tequipy_platform.http.errors import AddressRefused, CircuitOpen, DeadlineExceeded, ResponseTooLarge
else:

    def __getattr__(name: str) -> object:
        if name in __all__:
            return getattr(import_module(f"{__name__}.errors"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AddressRefused",
    "CircuitOpen",
    "DeadlineExceeded",
    "HttpClients",
    "HttpProfile",
    "HttpSettings",
    "ResponseTooLarge",
    "build_http_clients",
]

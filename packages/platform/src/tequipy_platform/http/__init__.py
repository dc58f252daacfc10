"""Outgoing HTTP calls: one httpx client for each profile, with deadline, retries and circuit breaker."""

try:
    import httpx as _httpx  # noqa: F401 -- of the extra
except ImportError as error:  # pragma: no cover -- tests/test_packages.py runs it in an environment without the extra
    raise ImportError("tequipy_platform.http needs the extra: pip install 'tequipy-platform[http]'") from error

from tequipy_platform.http.client import HttpClients, build_http_clients
from tequipy_platform.http.errors import AddressRefused, CircuitOpen, DeadlineExceeded, ResponseTooLarge
from tequipy_platform.http.settings import HttpProfile, HttpSettings

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

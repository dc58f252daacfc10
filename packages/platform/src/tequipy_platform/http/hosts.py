"""What is remembered about each host: its circuit breaker, its retry budget and its metrics."""

from collections import OrderedDict
from typing import Final

import httpx

from tequipy_platform.http.circuit_breaker import CircuitBreaker
from tequipy_platform.http.metrics import HttpClientMetrics
from tequipy_platform.http.retries import RetryBudget

_MAX_HOSTS: Final = 1000


class Host:
    """A scheme, a name and a port."""

    def __init__(self, name: str, profile: str, metrics: HttpClientMetrics, *, named: bool) -> None:
        self.name = name
        self.profile = profile
        self.breaker = CircuitBreaker(name)
        self.budget = RetryBudget()
        self.metrics = metrics.of_host(profile, name, named=named)
        self.forgotten = False
        """Whether another host has replaced this one, whose calls may still run."""


class Hosts:
    """The last used hosts of a profile."""

    def __init__(self, profile: str, metrics: HttpClientMetrics, *, named: bool) -> None:
        self._profile = profile
        self._metrics = metrics
        self._named = named
        self._hosts: OrderedDict[tuple[str, bytes], Host] = OrderedDict()

    def get(self, url: httpx.URL) -> Host:
        """Return the host of a URL; a new one replaces the one that was not used for the longest time."""
        key = (url.scheme, url.netloc)
        host = self._hosts.get(key)
        if host is None:
            host = self._hosts[key] = Host(url.host, self._profile, self._metrics, named=self._named)
            if len(self._hosts) > _MAX_HOSTS:
                _, forgotten = self._hosts.popitem(last=False)
                forgotten.forgotten = True
                forgotten.metrics.circuit_open.dec(forgotten.breaker.is_open)
        self._hosts.move_to_end(key)
        return host

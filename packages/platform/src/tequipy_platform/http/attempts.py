"""One attempt of a call, and what its end says about the host."""

import asyncio
import logging
from typing import Final

import httpx

from tequipy_platform.http.circuit_breaker import Outcome
from tequipy_platform.http.deadline import Call
from tequipy_platform.http.errors import AddressRefused, CircuitOpen, ResponseTooLarge
from tequipy_platform.http.hosts import Host

_LOCAL_ERRORS: Final = (
    AddressRefused,
    CircuitOpen,
    ResponseTooLarge,
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)
"""Errors that say nothing about the host."""
_SERVER_ERROR: Final = 500

logger = logging.getLogger("tequipy_platform.http")


class Attempt:
    """One request to a host, which its circuit breaker has admitted and judges by its end; raises `CircuitOpen`."""

    def __init__(self, host: Host) -> None:
        now = asyncio.get_running_loop().time()
        self._ticket: int | None = host.breaker.admit(now)
        self._host = host
        host.budget.count_request(now)

    @property
    def is_probe(self) -> bool:
        """Whether the breaker waits for it before it closes."""
        return self._host.breaker.is_open

    def end(self, outcome: Outcome) -> None:
        """Record the outcome; only the first one counts."""
        if self._ticket is None:
            return
        host, breaker = self._host, self._host.breaker
        was_open = breaker.is_open
        breaker.record(self._ticket, outcome, asyncio.get_running_loop().time())
        self._ticket = None
        if breaker.is_open != was_open and not host.forgotten:
            host.metrics.circuit_open.inc(1 if breaker.is_open else -1)
            logger.log(
                logging.WARNING if breaker.is_open else logging.INFO,
                "http_client_circuit_opened" if breaker.is_open else "http_client_circuit_closed",
                extra={"http_profile": host.profile, "http_host": host.name},
            )


def judge(error: BaseException, call: Call) -> Outcome:
    """Return what an error says about the host."""
    if isinstance(error, asyncio.CancelledError):
        failed = call.has_expired and call.connected
    else:
        failed = isinstance(error, httpx.TransportError) and not isinstance(error, _LOCAL_ERRORS)
    return Outcome.FAILED if failed else Outcome.UNKNOWN


def judge_status(status: int) -> Outcome:
    """Return what a status says about the host."""
    return Outcome.FAILED if status >= _SERVER_ERROR else Outcome.SUCCEEDED

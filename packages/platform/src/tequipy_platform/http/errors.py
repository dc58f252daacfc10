"""Errors of outgoing calls, beside those of httpx, whose subclasses they are."""

import httpx


class DeadlineExceeded(httpx.TimeoutException):
    """The call has not ended within the total time of its profile."""


class AddressRefused(httpx.ConnectError):
    """The request was not sent, because its host has an address that is not global, such as one of the own network."""


class CircuitOpen(httpx.TransportError):
    """The request was not sent (again), because most of the last calls to this host failed.

    `retry_after` are the seconds until calls are admitted again, 0 while the first ones have not ended.
    """

    def __init__(self, host: str, *, retry_after: float) -> None:
        super().__init__(f"The circuit breaker of {host} is open for another {retry_after:.1f} s.")
        self.retry_after = retry_after


class ResponseTooLarge(httpx.TransportError):
    """The body of the response is longer than the call allows, after decompression."""

"""Repeats requests that the API has refused for a time that it names (`Retry-After`, RFC 9110 section 10.2.3)."""

import asyncio
import random
from dataclasses import dataclass

import httpx

from tequipy_client.problems import retry_after

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
JITTER = 0.25
"""The largest share by which a wait is lengthened, so that concurrent requests do not return together."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a request is sent, and how many seconds it may wait in all; a longer wait is left to the caller."""

    attempts: int = 4
    max_wait: float = 10.0


class BackoffTransport(httpx.AsyncBaseTransport):
    """Waits and repeats a request after 429, and after 503 if a repetition cannot have a second effect.

    `all_methods` repeats also POST and PATCH without `Idempotency-Key` after 503.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, backoff: Backoff, *, all_methods: bool = False) -> None:
        self._transport = transport
        self._backoff = backoff
        self._all_methods = all_methods

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the first answer that is final, or the last one."""
        response = await self._transport.handle_async_request(request)
        left = self._backoff.max_wait
        for _ in range(1, self._backoff.attempts):
            wait = retry_after(response)
            if wait is None or wait > left or not self._repeatable(request, response):
                break
            wait = min(wait * (1 + random.uniform(0, JITTER)), left)  # noqa: S311 -- no secret
            left -= wait
            await response.aread()  # so that the connection can be used again
            await response.aclose()
            await asyncio.sleep(wait)
            response = await self._transport.handle_async_request(request)
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._transport.aclose()

    def _repeatable(self, request: httpx.Request, response: httpx.Response) -> bool:
        if not isinstance(request.stream, httpx.ByteStream):
            return False  # the body can be read once only
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return True
        idempotent = self._all_methods or request.method in IDEMPOTENT or "Idempotency-Key" in request.headers
        return response.status_code == httpx.codes.SERVICE_UNAVAILABLE and idempotent

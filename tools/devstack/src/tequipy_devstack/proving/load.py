"""Requests at a constant rate, and the result of each."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from types import TracebackType
from typing import Any, Self

import httpx

from tequipy_devstack.proving.waiting import eventually

_PATIENCE = 60.0
"""The timeout of a response in seconds; longer than the API promises, so that failures are statuses of the API."""


@dataclass(frozen=True)
class Route:
    """One kind of request, with the status that counts as success."""

    method: str
    path: str
    expected: int
    body: Callable[[], Mapping[str, str]] | None = None
    """Returns the JSON body, called for each request."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """The result of one request; times are seconds of the monotonic clock."""

    path: str
    sent_at: float
    ended_at: float
    outcome: str
    """Status and, if the JSON response has one, its `code` or `status`; or the name of the exception."""
    good: bool
    retry_after: str | None = None

    @property
    def seconds(self) -> float:
        """The time until the response was complete."""
        return self.ended_at - self.sent_at


class Load:
    """Sends `rate` requests a second, of each route in turn, from a thread of its own while the block lasts.

    The rate does not depend on the response times (open loop), so a slow server gets as many requests as a fast one.
    Leaving the block waits for the remaining responses.
    """

    def __init__(self, url: str, routes: Sequence[Route], *, rate: float) -> None:
        self.rate = rate
        self.samples: list[Sample] = []
        """The results in the order of the responses; may be read at any time."""
        self._url = url
        self._routes = routes
        self._sent = 0
        self._stopping = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._running: Future[None] | None = None

    def send(self, count: int) -> None:
        """Return after `count` more requests have been sent."""
        target = self._sent + count
        eventually(f"{count} requests are sent", lambda: self._sent >= target, within=10 + 2 * count / self.rate)

    def __enter__(self) -> Self:
        self._running = self._thread.submit(asyncio.run, self._run())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        with self._thread:
            if self._running is not None:
                self._running.result()

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        client = httpx.AsyncClient(base_url=self._url, timeout=_PATIENCE, limits=limits)
        began = time.monotonic()
        async with client, asyncio.TaskGroup() as requests:
            for route in cycle(self._routes):
                await asyncio.sleep(began + self._sent / self.rate - time.monotonic())
                if self._stopping:
                    return
                requests.create_task(self._send(client, route))
                self._sent += 1

    async def _send(self, client: httpx.AsyncClient, route: Route) -> None:
        body = route.body() if route.body else None
        sent_at, retry_after, good = time.monotonic(), None, False
        try:
            answer = await client.request(route.method, route.path, json=body, headers=route.headers)
        except httpx.HTTPError as error:
            outcome = type(error).__name__
        else:
            good, outcome = answer.status_code == route.expected, _outcome(answer)
            retry_after = answer.headers.get("retry-after")
        self.samples.append(Sample(route.path, sent_at, time.monotonic(), outcome, good, retry_after))


def _outcome(answer: httpx.Response) -> str:
    try:
        content: Any = answer.json()
    except ValueError:
        content = None
    word = content.get("code") or content.get("status") if isinstance(content, dict) else None
    return f"{answer.status_code} {word}" if word else str(answer.status_code)

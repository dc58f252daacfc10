"""Clients that log in, refresh, read, register others, request reports and log out, and what they got."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx

from tequipy_devstack.proving import Sample
from tequipy_devstack.proving.traffic import PASSWORD, registration

API = "/api/v1"
AUTH = f"{API}/auth"
_ROUNDS_PER_SESSION = 10
_REPEAT_AFTER = 0.2
_REPORT = {"kind": "user_activity", "from": "2026-01-01", "to": "2026-01-31", "format": "csv"}
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


class LostSessionError(Exception):
    """A response that a client with a valid session must not get."""


class Clients:
    """One client for each account, which works in a thread while the block lasts; each request has its own connection.

    A client repeats a request until it is answered, as clients do, except a registration. The account `reporter`, which
    needs the permission, requests reports, one after the other.
    """

    def __init__(self, url: str, emails: Sequence[str], *, pause: float, reporter: str | None = None) -> None:
        self.samples: list[Sample] = []
        """Every request, in the order of the responses."""
        self.lost: list[str] = []
        """The reason for each session that has ended without a logout."""
        self.registered: list[str] = []
        """The addresses whose registration has been accepted."""
        self.unanswered: list[str] = []
        """The addresses of whose registration it is unknown whether it was accepted."""
        self.reports: list[str] = []
        """The ids of the reports whose request has been accepted."""
        self._url = url
        self._reporter = reporter
        self._emails = emails
        self._pause = pause
        self._over = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clients")
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        self._running = self._thread.submit(asyncio.run, self._run_all())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        with self._thread:
            if self._running is not None:
                self._running.result()

    async def _run_all(self) -> None:
        # No connection is kept, so that each request goes to the next process behind a balancer.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self._url, timeout=60, limits=limits) as client:
            reporters = [self._run(self._request_reports, client, self._reporter)] if self._reporter else []
            await asyncio.gather(
                *(self._run(self._live_through_a_session, client, email) for email in self._emails), *reporters
            )

    async def _run(
        self, live: Callable[[httpx.AsyncClient, str], Awaitable[None]], client: httpx.AsyncClient, email: str
    ) -> None:
        try:
            while not self._over.is_set():
                await live(client, email)
        except LostSessionError as error:
            self.lost.append(str(error))

    async def _log_in(self, client: httpx.AsyncClient, email: str) -> dict[str, str]:
        body = {"email": email, "password": PASSWORD, "token_delivery": "body"}
        return await self._repeat(client, "POST", f"{AUTH}/login", {200}, json=body)

    async def _request_reports(self, client: httpx.AsyncClient, email: str) -> None:
        """Request a report, wait for its end, and so on."""
        tokens = await self._log_in(client, email)
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        while not self._over.is_set():
            key = {"Idempotency-Key": uuid4().hex}
            report = await self._repeat(client, "POST", f"{API}/reports", {202}, json=_REPORT, headers=headers | key)
            self.reports.append(report["id"])
            while report["status"] in {"queued", "running"} and not self._over.is_set():
                await asyncio.sleep(self._pause)
                report = await self._repeat(client, "GET", f"{API}/reports/{report['id']}", {200}, headers=headers)

    async def _live_through_a_session(self, client: httpx.AsyncClient, email: str) -> None:
        tokens = await self._log_in(client, email)
        for number in count(1):
            await self._register(client)
            tokens = await self._repeat(
                client, "POST", f"{AUTH}/refresh", {200}, json={"refresh_token": tokens["refresh_token"]}
            )
            bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
            await self._repeat(client, "GET", f"{AUTH}/me", {200}, headers=bearer)
            if self._over.is_set():
                return
            if number == _ROUNDS_PER_SESSION:
                # 401 if the session has ended by an earlier try that got no response.
                await self._repeat(client, "POST", f"{AUTH}/logout", {204}, {401}, headers=bearer)
                return
            await asyncio.sleep(self._pause)

    async def _register(self, client: httpx.AsyncClient) -> None:
        """Register a new address, once: a second registration would have a mail of its own."""
        body = registration()
        answer = await self._send(client, "POST", f"{AUTH}/register", {202}, json=body)
        accepted = answer is not None and answer.status_code == httpx.codes.ACCEPTED
        (self.registered if accepted else self.unanswered).append(body["email"])

    async def _repeat(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        expected: set[int],
        repeated: set[int] | None = None,
        **request: Any,
    ) -> dict[str, str]:
        """Send a request until it is answered; `repeated` are further statuses that only a repetition may get."""
        while True:
            answer = await self._send(client, method, path, expected, **request)
            if answer is not None and answer.status_code not in _TRANSIENT:
                break
            expected = expected | (repeated or set())
            await asyncio.sleep(_REPEAT_AFTER)
        if answer.status_code not in expected:
            raise LostSessionError(f"{method} {path}: {answer.status_code} {answer.text}")
        body: dict[str, str] = answer.json() if answer.content else {}
        return body

    async def _send(
        self, client: httpx.AsyncClient, method: str, path: str, expected: set[int], **request: Any
    ) -> httpx.Response | None:
        sent_at, answer = time.monotonic(), None
        try:
            answer = await client.request(method, path, **request)
            outcome = str(answer.status_code)
        except httpx.TransportError as error:
            outcome = type(error).__name__
        good = answer is not None and answer.status_code in expected
        self.samples.append(Sample(path.removeprefix(f"{API}/"), sent_at, time.monotonic(), outcome, good))
        return answer

"""A real upstream process that is killed, frozen or slow: what a call through the HTTP client costs."""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from signal import Signals

import httpx
import pytest

from tequipy_devstack.ports import free_port
from tequipy_devstack.proving import Program, eventually
from tequipy_devstack.proving.upstream import Upstream, unaccepting
from tequipy_platform.http import CircuitOpen, DeadlineExceeded, HttpClients, HttpSettings, build_http_clients

HEALTH = HttpSettings().health
CALLS, OPEN_SECONDS, PROBES = 20, 15, 3
"""What docs/reliability.md promises of the circuit breaker."""


class Server(Program):
    """An upstream in a process of its own; entering it waits until it answers."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "tequipy_devstack.proving.upstream", str(self.port)]
        super().__init__([*command], os.environ, folder / "upstream.log")
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        super().start()
        eventually("the upstream answers", self._answers)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ok", trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


def clients() -> HttpClients:
    return build_http_clients(HttpSettings(), app_name="shop", app_version="1")


async def seconds_of(call: Awaitable[httpx.Response]) -> tuple[float, str]:
    """Return the time until a call ended, and how it ended."""
    began = time.monotonic()
    try:
        how = str((await call).status_code)
    except httpx.HTTPError as error:
        how = type(error).__name__
    return time.monotonic() - began, how


async def stream(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """Read a response piece by piece."""
    async with client.stream("GET", url) as response:
        async for _ in response.aiter_raw():
            pass
    return response


@pytest.mark.parametrize("fault", ["killed", "frozen", "slow", "unreachable"])
def test_a_dead_upstream_costs_at_most_its_total(server: Server, fault: str) -> None:
    """Calls during which the upstream is killed, frozen or slow, or that begin after it, end by their profile's total.

    GET has three attempts and POST one; a streamed response ends too.
    """

    async def calls(url: str) -> list[tuple[float, str]]:
        async with clients() as http:
            assert (await http.health.get(f"{server.url}/ok")).status_code == httpx.codes.OK  # an idle connection
            path = "/drip" if fault == "slow" else "/hang"
            running = [
                asyncio.create_task(seconds_of(call))
                for call in (
                    http.health.get(url + path),
                    http.health.post(url + path),
                    stream(http.health, url + "/drip"),
                )
            ]
            await asyncio.sleep(0.2)
            if fault in {"killed", "frozen"}:
                break_down(server, fault)
            later = [seconds_of(http.health.get(f"{url}/ok")), seconds_of(http.health.post(f"{url}/ok"))]
            return list(await asyncio.gather(*running, *later))

    try:
        with unaccepting() as nowhere:
            ended = asyncio.run(calls(nowhere if fault == "unreachable" else server.url))
    finally:
        if fault == "frozen":
            os.kill(server.pid, Signals.SIGCONT)
    print(
        f"\n{fault}: total {HEALTH.total:g} s; calls ended after {', '.join(f'{s:.2f} s ({how})' for s, how in ended)}"
    )
    # The margin is for a busy machine: without the deadline they would take 9 s (three read timeouts) or for ever.
    assert max(seconds for seconds, _ in ended) < HEALTH.total + 2
    if fault != "slow":
        assert "200" not in {how for _, how in ended}


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_the_four_profiles_end_a_dripping_upstream_at_their_totals() -> None:
    """An upstream that sends a byte each half second never meets a read timeout, and ends at each profile's total."""

    async def calls() -> dict[str, list[tuple[float, str]]]:
        async with Upstream() as upstream, clients() as http:
            # The webhooks profile refuses addresses of this machine, so its client gets another pool.
            local = HttpClients(HttpSettings(), user_agent="shop/1", transports=lambda _: httpx.AsyncHTTPTransport())
            async with local:
                named = {"default": http.default, "llm": http.llm, "health": http.health, "webhooks": local.webhooks}
                url = f"{upstream.url}/drip"
                pairs = [(seconds_of(each.get(url)), seconds_of(stream(each, url))) for each in named.values()]
                results = await asyncio.gather(*(asyncio.gather(*pair) for pair in pairs))
            return dict(zip(named, map(list, results), strict=True))

    ended = asyncio.run(calls())
    print("\n| profile | total | whole | streamed |\n|---|---:|---:|---:|")
    for name, ((whole, how), (streamed, how_streamed)) in ended.items():
        total = getattr(HttpSettings(), name).total
        print(f"| {name} | {total:g} s | {whole:.2f} s ({how}) | {streamed:.2f} s ({how_streamed}) |")
        assert {how, how_streamed} == {DeadlineExceeded.__name__}
        assert total <= min(whole, streamed)
        assert max(whole, streamed) < total + 2


class Counted:
    """Counts what happens to calls at a constant rate, by phase."""

    def __init__(self, http: HttpClients, url: str) -> None:
        self._client = http.default
        self._url = url
        self._calls: set[asyncio.Task[None]] = set()
        self.sent: list[float] = []
        """The times of the calls that reached the upstream, or tried to."""
        self.succeeded: list[float] = []
        self.refused: list[float] = []
        self.microseconds: list[float] = []
        """The cost of each refused call."""

    async def run(self, seconds: float, *, until: Callable[[], object] = lambda: False) -> None:
        """Start 100 calls a second."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            task = asyncio.create_task(self._call())
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            await asyncio.sleep(0.01)

    async def drain(self) -> None:
        """Wait for the calls that have begun."""
        if self._calls:
            await asyncio.wait(self._calls)

    async def _call(self) -> None:
        began, spent = time.monotonic(), time.perf_counter()
        try:
            # With a deadline of a second, so that the calls to a frozen upstream end soon.
            await self._client.post(self._url, extensions={"total": 1.0})
        except CircuitOpen:
            self.microseconds.append((time.perf_counter() - spent) * 1e6)
            self.refused.append(began)
        except httpx.HTTPError:
            self.sent.append(began)
        else:
            self.sent.append(began)
            self.succeeded.append(began)


def test_an_upstream_that_never_answered_is_refused_after_twenty_calls() -> None:
    """Without any success before, the breaker opens at the twentieth failed call."""

    async def calls() -> int:
        url = f"http://127.0.0.1:{free_port()}/"
        async with clients() as http:
            for number in range(100):
                try:
                    await http.default.post(url)
                except CircuitOpen:
                    return number
                except httpx.ConnectError:
                    await asyncio.sleep(0.01)
        return 100

    opened = asyncio.run(calls())
    print(f"\nan upstream that was dead from the start: {opened} calls until the breaker opened")
    assert opened == CALLS


@pytest.mark.timeout(300)
@pytest.mark.prove
@pytest.mark.parametrize("kind", ["killed", "frozen"])
def test_a_dead_upstream_is_left_alone_and_used_again(server: Server, kind: str) -> None:
    """At 100 calls a second the breaker opens, admits at most three calls each 15 s, and closes after the recovery."""

    async def calls() -> Counted:
        async with clients() as http:
            counted = Counted(http, f"{server.url}/ok")
            await counted.run(1)
            await counted.drain()
            healthy = len(counted.sent)
            assert (len(counted.succeeded), counted.refused) == (healthy, [])
            break_down(server, kind)
            await counted.run(120, until=lambda: counted.refused)
            await counted.drain()
            opened = len(counted.sent)
            await counted.run(2 * OPEN_SECONDS + 1)
            await counted.drain()
            probed = len(counted.sent)
            recover(server, kind)
            recovered = time.monotonic()
            await counted.run(60, until=lambda: len(counted.succeeded) > healthy + PROBES)
            seconds = time.monotonic() - recovered
            refusals = len(counted.refused)
            await counted.run(1)
            await counted.drain()
            print(f"\n{kind}, at 100 calls a second, of which {healthy} have succeeded before")
            print(f"calls until the breaker opened, with those in flight: {opened - healthy}")
            print(f"calls in two windows of {OPEN_SECONDS} s: {probed - opened}")
            print(f"seconds until closed after the recovery: {seconds:.1f}")
            assert opened - healthy >= CALLS
            assert 1 <= probed - opened <= 2 * PROBES
            assert len(counted.refused) == refusals, "it stays closed"
            return counted

    counted = asyncio.run(calls())
    print(f"a refused call: {statistics.median(counted.microseconds):.0f} µs (median of {len(counted.refused)})")


def break_down(server: Server, kind: str) -> None:
    """Kill or freeze the upstream."""
    if kind == "killed":
        server.kill()
    else:
        os.kill(server.pid, Signals.SIGSTOP)


def recover(server: Server, kind: str) -> None:
    """Start it again, or let it go on."""
    if kind == "killed":
        server.start()
    else:
        os.kill(server.pid, Signals.SIGCONT)

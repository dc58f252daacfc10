"""Measures what each kind of request costs each process, and calculates how a deployment grows to 100,000 a second.

Two cores cannot serve 100,000 requests a second, so the second table is a calculation from the first one: every
resource has a capacity, the least one is the bottleneck, and more of it is added until the next one is.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from signal import Signals
from typing import Final
from uuid import uuid4

import bcrypt
import click
import httpx
from comparison import ORDER
from harness.document import write_section
from harness.load import Request, find_generator
from harness.plan import MIX, Costs, Measured, grow
from harness.servers import Server, cpu_seconds
from harness.testbed import RAISED_LIMIT, Testbed, bearer, log_in, testbed
from pydantic import SecretStr
from redis import Redis
from report import markdown_table

from tequipy_auth import CACHE_POLICIES, Profile
from tequipy_auth.wiring import AuthSettings
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.proving import eventually
from tequipy_devstack.proving.traffic import PASSWORD

THREADS: Final = 8
REQUESTS: Final = 25
"""Requests of each thread, of kinds that a load generator cannot repeat, because each one differs."""

TARGET: Final = 100_000
IDLE_SECONDS: Final = 3
SUBSCRIBERS: Final = 50
PUBLISHED: Final = 1000
BATCHES: Final = 150
BATCH: Final = 20
"""Keys that one client invalidates at the same time."""
BOTTLENECKS: Final = {
    "api": "CPU of the API",
    "postgres": "CPU of PostgreSQL",
    "valkey": "CPU of Redis",
    "relay": "CPU of the relay",
    "worker": "CPU of the workers",
}


class Meter:
    """Reads the CPU time of all processes and the commands of Valkey, less what they use without requests."""

    def __init__(self, pids: Mapping[str, int], redis: Redis) -> None:
        self._pids = pids
        self._redis = redis
        self._idle = dict.fromkeys([*pids, "commands"], 0.0)
        samples = [self._spent(lambda: time.sleep(1)) for _ in range(IDLE_SECONDS)]
        self._idle = {name: min(sample[name] for sample in samples) for name in self._idle}

    def _read(self) -> dict[str, float]:
        commands = float(self._redis.info("stats")["total_commands_processed"])
        return {**{name: cpu_seconds(pid) * 1e6 for name, pid in self._pids.items()}, "commands": commands}

    def _spent(self, act: Callable[[], object]) -> dict[str, float]:
        """Return what every process spends per second while `act` runs."""
        before, began = self._read(), time.perf_counter()
        act()
        seconds = time.perf_counter() - began
        return {name: (value - before[name]) / seconds - self._idle[name] for name, value in self._read().items()}

    def per_request(self, send: Callable[[], int]) -> Costs:
        """Return the costs of one of the requests that `send` sends, whose number it returns."""
        sent = list[int]()
        began = time.perf_counter()
        rates = self._spent(lambda: sent.append(send()))
        seconds = time.perf_counter() - began
        return Costs(**{name: max(0.0, rate * seconds / sent[0]) for name, rate in rates.items()})


Tokens = Mapping[str, str]
Act = Callable[[httpx.Client, Tokens], None]
"""Sends `REQUESTS` requests, with the tokens of a session of their own."""


class Clients:
    """Send requests of which each one differs, in several threads, and wait for what follows them."""

    def __init__(self, bed: Testbed, service: Server, relay: int) -> None:
        self._bed = bed
        self._service = service
        self._relay = relay
        with httpx.Client(base_url=service.url, timeout=60) as client:
            self.sessions: Sequence[Tokens] = [log_in(client) for _ in range(THREADS)]

    def send(self, act: Act, sessions: Sequence[Tokens]) -> int:
        """Call `act` in a thread for each session; return the number of requests when all messages are processed.

        The relay is frozen until all requests are sent, so that it publishes in batches as it does under load.
        """
        os.kill(self._relay, Signals.SIGSTOP)
        try:
            with ThreadPoolExecutor(THREADS) as threads:
                for done in [threads.submit(self._send, act, tokens) for tokens in sessions]:
                    done.result()
        finally:
            os.kill(self._relay, Signals.SIGCONT)
        eventually("all messages are processed", self._settled, within=120, every=0.3)
        return len(sessions) * REQUESTS

    def _send(self, act: Act, tokens: Tokens) -> None:
        with httpx.Client(base_url=self._service.url, timeout=60) as client:
            act(client, tokens)

    def _settled(self) -> bool:
        waiting = "select count(*) from platform.outbox where settled_at is null and not_before <= now()"
        return self._bed.postgres.execute(waiting, "tequipy").strip() == "0"


def change(client: httpx.Client, tokens: Tokens) -> None:
    """Change an account, whose cached copies are dropped in all processes."""
    headers = bearer(tokens["access_token"])
    for number in range(REQUESTS):
        client.patch("/api/v1/auth/me", json={"name": f"Ada {number}"}, headers=headers).raise_for_status()


def refresh(client: httpx.Client, tokens: Tokens) -> None:
    """Rotate one refresh token again and again."""
    token = tokens["refresh_token"]
    for _number in range(REQUESTS):
        answer = client.post("/api/v1/auth/refresh", json={"refresh_token": token}).raise_for_status()
        token = answer.json()["refresh_token"]


def log_ins(client: httpx.Client, _: Tokens) -> None:
    """Log in with a cheap hash; the one of production is added by calculation."""
    for _number in range(REQUESTS):
        log_in(client)


def register(client: httpx.Client, _: Tokens) -> None:
    """Register addresses, each of which gets a mail from the worker through outbox, relay and broker."""
    for _number in range(REQUESTS):
        body = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        client.post("/api/v1/auth/register", json=body).raise_for_status()


def ask(client: httpx.Client, _: Tokens) -> None:
    """Send requests that are refused after the limiter's server was asked, because their policy has no leases."""
    for _number in range(REQUESTS):
        client.post("/api/v1/auth/refresh", json={"refresh_token": "none"})


def measure(bed: Testbed) -> Measured:
    """Return the costs of each kind of request."""
    deployment = bed.deployment(TEQUIPY_RATE_LIMITS__REFRESH=RAISED_LIMIT)
    service, other = bed.service(deployment), bed.service(deployment)
    relay, worker = bed.stack.enter_context(deployment.relay()), bed.stack.enter_context(deployment.worker())
    clients, generator = Clients(bed, service, relay.pid), find_generator()
    headers = bearer(clients.sessions[0]["access_token"])
    # The other process caches the account too, and drops its copy at each change.
    httpx.get(f"{other.url}/api/v1/auth/me", headers=headers, timeout=30).raise_for_status()
    clients.send(register, clients.sessions)  # until the worker has started
    pids = {"api": service.pid, "other": other.pid, "relay": relay.pid, "worker": worker.pid}
    redis = Redis.from_url(bed.valkey.url())
    meter = Meter({**pids, "postgres": bed.postgres.pid, "valkey": bed.valkey.pid}, redis)

    def repeat(request: Request) -> Costs:
        generator.run(service.port, request, 1)  # a warm-up
        return meter.per_request(lambda: generator.run(service.port, request, 2).responses)

    def each(act: Act, threads: int = THREADS) -> Costs:
        return meter.per_request(lambda: clients.send(act, clients.sessions[:threads]))

    dropped = dropping(meter, deployment.environment["TEQUIPY_CACHE__URL"])
    kinds = {
        "cached read": repeat(Request("GET", "/api/v1/auth/me", headers)),
        "feature without storage": repeat(Request("POST", "/api/v1/orders", headers, ORDER)),
        "read by a query": repeat(Request("GET", "/api/v1/auth/sessions", headers)),
        "change": replace(each(change), other=dropped),
        "message": each(register),
        "refresh": each(refresh),
        "login": each(log_ins, 1),  # parallel ones of one account count as guesses until each has ended
    }
    return Measured(kinds, hashing(), each(ask).valkey, delivery(meter, redis))


def dropping(meter: Meter, url: str) -> float:
    """Return what a process spends for each dropped copy, in microseconds.

    Measured with as many changes a second as one client can make, so that a process reads several invalidations at
    once, as it does near the target.
    """
    return meter.per_request(lambda: asyncio.run(invalidate(url))).other


async def invalidate(url: str) -> int:
    """Invalidate profiles, one by one, that no process caches; return the number."""
    settings = CacheSettings(url=SecretStr(url), policies=dict(CACHE_POLICIES))
    async with build_cache(settings) as manager:
        profiles = manager.cache("user_profile", Profile)
        for _ in range(BATCHES):
            await asyncio.gather(*(profiles.delete(str(uuid4())) for _ in range(BATCH)))
    return BATCHES * BATCH


def hashing() -> float:
    """Return the CPU time of a password hash at the default cost, in microseconds."""
    cost, times = AuthSettings.model_fields["bcrypt_cost"].default, list[float]()
    for _ in range(3):
        began = time.thread_time()
        bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost))
        times.append(time.thread_time() - began)
    return min(times) * 1e6


def delivery(meter: Meter, redis: Redis) -> float:
    """Return what the server spends for each subscriber of a message, in microseconds."""

    def publish() -> int:
        for number in range(PUBLISHED):
            redis.publish("bench", f"{number:048d}")
        return PUBLISHED

    alone = meter.per_request(publish).valkey
    with ExitStack() as stack:
        for _ in range(SUBSCRIBERS):
            subscriber = stack.enter_context(closing(redis.pubsub()))  # type: ignore[no-untyped-call]  # -- redis-py does not annotate it
            subscriber.subscribe("bench")
        return max(0.0, meter.per_request(publish).valkey - alone) / SUBSCRIBERS


def cost_table(measured: Measured) -> str:
    """Return the measured costs, with the mean of the mix in the last row."""
    columns = ("request", "share", "API", "PostgreSQL", "Redis", "Redis commands", "relay", "worker")
    rows: list[list[object]] = [
        [kind, f"{share:.2%}", costs.api, costs.postgres, costs.valkey, costs.commands, costs.relay, costs.worker]
        for kind, share in MIX.items()
        for costs in [measured.kinds[kind]]
    ]
    mean = measured.mean()
    rows.append(["**the mix**", "", mean.api, mean.postgres, mean.valkey, mean.commands, mean.relay, mean.worker])
    return markdown_table(columns, rows)


def plan_table(measured: Measured) -> str:
    """Return the steps to the target."""
    columns = (
        "requests/s",
        "API processes",
        "PostgreSQL cores",
        "Redis servers",
        "relays",
        "worker cores",
        "connections",
        "first bottleneck",
    )
    rows = [
        [
            f"{step.rate:,.0f}",
            step.deployment.api,
            step.deployment.postgres,
            step.deployment.valkey,
            step.deployment.relay,
            step.deployment.worker,
            step.deployment.connections,
            BOTTLENECKS[step.bottleneck],
        ]
        for step in grow(measured, TARGET)
    ]
    return markdown_table(columns, rows)


@click.command()
@click.option("--print", "only_print", is_flag=True, help="Change no file.")
def main(only_print: bool) -> None:  # noqa: FBT001 -- click passes it by name
    """Measure, calculate, print both tables, and write them into docs/."""
    with testbed() as bed:
        measured = measure(bed)
    beside = ", ".join(
        (
            f"a password hash {measured.hashing / 1e3:.0f} ms in the API",
            f"a dropped copy {measured.kinds['change'].other:.0f} µs in every other API process",
            f"a question to the limiter {measured.limit:.0f} µs of Redis",
            f"an invalidation {measured.delivery:.2f} µs of Redis for each process that it is sent to",
        )
    )
    text = f"{cost_table(measured)}\nBeside these: {beside}.\n\n{plan_table(measured)}"
    print(text)
    if not only_print:
        write_section("capacity", text)


if __name__ == "__main__":
    main()

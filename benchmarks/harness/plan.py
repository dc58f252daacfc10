"""Calculates the throughput of a deployment from the measured costs of requests, and what must be added to raise it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

UTILISATION: Final = 0.7
"""The share of a core that a plan may use, so that latency stays low and a lost process can be replaced."""

MIX: Final[Mapping[str, float]] = {
    "cached read": 0.70,
    "feature without storage": 0.20,
    "read by a query": 0.07,
    "change": 0.014,
    "message": 0.01,
    "refresh": 0.0055,
    "login": 0.0005,
}
"""The share of each kind of request. Each client sends one request in five seconds, and refreshes once in 180."""

LEASED: Final = 1 / 12
"""Questions to the limiter per request of such a client: one lease a minute for 12 requests."""

LEAST_GAIN: Final = 1.05
"""The least factor by which twice as much of a resource must raise its capacity."""

SEPARATE_SERVERS: Final = 3
"""Cache, limits and broker can each have a Redis of their own.

Further ones are shards of cache and limits by their keys, which is calculated only: our packages do not divide keys.
"""


@dataclass(frozen=True)
class Costs:
    """What one request costs: microseconds of CPU in each process, and commands of Redis."""

    api: float = 0
    other: float = 0
    """In every other process of the API, which drops its copy of a changed value."""
    postgres: float = 0
    valkey: float = 0
    commands: float = 0
    relay: float = 0
    worker: float = 0

    def times(self, factor: float) -> "Costs":
        """Return the costs multiplied."""
        return Costs(**{each.name: getattr(self, each.name) * factor for each in fields(self)})

    def plus(self, other: "Costs") -> "Costs":
        """Return the sum."""
        return Costs(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


@dataclass(frozen=True)
class Measured:
    """The costs of each kind of request, and those of which a mix does not consist."""

    kinds: Mapping[str, Costs]
    hashing: float
    """Microseconds of a password hash at the cost of production, in the API."""
    limit: float
    """Microseconds of the limiter's server for one question."""
    delivery: float
    """Microseconds of the server for each process that an invalidation is sent to."""

    def mean(self) -> Costs:
        """Return the mean costs of a request of the mix, without questions to the limiter and deliveries."""
        total = Costs(api=self.hashing * MIX["login"])
        for kind, share in MIX.items():
            total = total.plus(self.kinds[kind].times(share))
        return total


@dataclass(frozen=True)
class Deployment:
    """The number of processes, of PostgreSQL's cores, and of Redis servers."""

    api: int = 1
    postgres: int = 1
    valkey: int = 1
    relay: int = 1
    worker: int = 1

    def capacities(self, measured: Measured) -> dict[str, float]:
        """Return how many requests a second each resource allows."""
        mean, microseconds = measured.mean(), UTILISATION * 1e6
        # A change enqueues a message too, which makes sure that its cached copies are dropped.
        broker = measured.kinds["message"].valkey * (MIX["message"] + MIX["change"])
        limits = measured.limit * LEASED
        cache = max(0.0, mean.valkey - broker) + MIX["change"] * measured.delivery * self.api
        by_number = [cache + limits + broker, max(cache, limits + broker), max(cache, limits, broker)]
        if self.valkey > SEPARATE_SERVERS:
            by_number.append(max(_divided(cache, limits, self.valkey - 1), broker))
        costs = {
            # Each process serves its part of the requests, and drops its copy of every value that any of them changes.
            "api": mean.api / self.api + mean.other,
            "postgres": mean.postgres / self.postgres,
            "valkey": by_number[min(self.valkey, len(by_number)) - 1],
            "relay": mean.relay / self.relay,
            "worker": mean.worker / self.worker,
        }
        return {name: microseconds / cost if cost else float("inf") for name, cost in costs.items()}

    def bottleneck(self, measured: Measured) -> tuple[str, float]:
        """Return the resource with the least capacity, and that capacity."""
        capacities = self.capacities(measured)
        name = min(capacities, key=lambda each: capacities[each])
        return name, capacities[name]

    def with_more(self, name: str) -> "Deployment":
        """Return the deployment with twice as much of a resource, or one more Redis server."""
        number: int = getattr(self, name)
        return replace(self, **{name: number + 1 if name == "valkey" else number * 2})

    def without_idle(self, measured: Measured, rate: float) -> "Deployment":
        """Return the smallest deployment for a rate with the same kinds of resources."""
        least = self
        for name in ("api", "postgres", "relay", "worker"):
            while getattr(least, name) > 1:
                smaller = replace(least, **{name: getattr(least, name) - 1})
                if smaller.bottleneck(measured)[1] < rate:
                    break
                least = smaller
        return least

    @property
    def connections(self) -> int:
        """Connections to PostgreSQL with the default pools: two of a pool for each core of workers."""
        return self.api * 17 + self.worker * 17 + self.relay * 18 + 17


def _divided(cache: float, limits: float, servers: int) -> float:
    """Return the greatest cost of a server where cache and limits share the servers as evenly as possible."""
    return min(max(cache / each, limits / (servers - each)) for each in range(1, servers))


@dataclass(frozen=True)
class Step:
    """A deployment with its throughput and the resource that limits it."""

    deployment: Deployment
    rate: float
    bottleneck: str


def grow(measured: Measured, target: float) -> Iterator[Step]:
    """Yield deployments from one process of each kind to the target, each faster than the one before.

    Each has more of what limited the one before. Ends early where more of a resource does not help.
    """
    deployment, best = Deployment(), 0.0
    while True:
        name, rate = deployment.bottleneck(measured)
        if rate >= target:
            least = deployment.without_idle(measured, target)
            yield Step(least, target, least.bottleneck(measured)[0])
            return
        # More processes of the API send more invalidations, so that they may make Redis the bottleneck.
        if rate > best:
            yield Step(deployment, rate, name)
            best = rate
        more = deployment.with_more(name)
        if name == "valkey" and more.capacities(measured)[name] <= rate:  # cache and limits need one more each
            more = more.with_more(name)
        # Every process of the API drops its copies of all changed values, so that at some number more do not help.
        raised = more.capacities(measured)[name]
        if raised <= rate or (name != "valkey" and raised < rate * LEAST_GAIN):
            return
        deployment = more

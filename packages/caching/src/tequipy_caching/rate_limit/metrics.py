"""Prometheus counters of the rate limiter."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from tequipy_caching.cache.metrics import Tally
from tequipy_caching.rate_limit.policies import RateDecision


class DecisionCounts(Collector):
    """Counts decisions by policy, outcome (allowed, denied) and degradation, and vanished buckets by policy.

    A vanished bucket is one that the server lost by eviction or restart; the process continued from its own memory.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._tallies: dict[tuple[str, bool, bool], Tally] = {}
        self._vanished: dict[str, Tally] = {}
        if registry is not None:
            registry.register(self)

    def count(self, policy: str, decision: RateDecision) -> None:
        """Count a decision."""
        labels = (policy, decision.allowed, decision.degraded)
        tally = self._tallies.get(labels)
        if tally is None:
            tally = self._tallies[labels] = Tally()
        tally.count += 1

    def count_vanished(self, policy: str) -> None:
        """Count a vanished bucket."""
        self._vanished.setdefault(policy, Tally()).count += 1

    def collect(self) -> Iterable[Metric]:
        """Yield the counters."""
        family = CounterMetricFamily(
            "ratelimit_decisions", "Decisions of the rate limiter.", labels=("policy", "outcome", "degraded")
        )
        for (policy, allowed, degraded), tally in list(self._tallies.items()):  # a copy: a scrape runs in a thread
            family.add_metric([policy, "allowed" if allowed else "denied", str(degraded).lower()], tally.count)
        yield family
        vanished = CounterMetricFamily(
            "ratelimit_vanished_buckets",
            "Buckets that the server lost and that a process restored from its memory.",
            labels=("policy",),
        )
        for policy, tally in list(self._vanished.items()):
            vanished.add_metric([policy], tally.count)
        yield vanished

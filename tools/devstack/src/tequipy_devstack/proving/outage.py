"""An outage under load: results of requests and readiness checks before, during and after it."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tequipy_devstack.proving.load import Load, Route, Sample
from tequipy_devstack.proving.waiting import eventually

READINESS = Route("GET", "/api/v1/readiness", 200)
PROBES_PER_SECOND = 5
READY = "200 ready"
_CALM_SECONDS = 0.5
"""How long the load lasts before the fault, and after the recovery."""


@dataclass(frozen=True)
class Findings:
    """The results of an outage, which lasts from the fault to the first `ready` after it."""

    requests: Sequence[Sample]
    probes: Sequence[Sample]
    began: float
    ended: float
    """When the dependency itself worked again."""
    recovered: float

    @property
    def inside(self) -> list[Sample]:
        """Requests that were in progress at some time of the outage."""
        return [sample for sample in self.requests if not self._outside(sample)]

    @property
    def outside(self) -> list[Sample]:
        """Requests that were answered before the outage or sent after it."""
        return [sample for sample in self.requests if self._outside(sample)]

    @property
    def meanwhile(self) -> list[Sample]:
        """Readiness checks that were sent during the outage."""
        return [probe for probe in self.probes if self.began <= probe.sent_at < self.recovered]

    @property
    def recovery_seconds(self) -> float:
        """The time from the dependency's recovery to the first readiness that reports it."""
        return self.recovered - self.ended

    def describe(self, what: str) -> str:
        """Return the figures as two lines of text."""
        inside, meanwhile = self.inside, self.meanwhile
        return (
            f"\n{what}: {len(self.requests)} requests, failed outside the outage: {len(failed(self.outside))}; "
            f"inside ({self.recovered - self.began:.1f} s): {count(inside)}, slowest {slowest(inside):.2f} s;\n"
            f"    ready {self.recovery_seconds:.1f} s after it was back; "
            f"readiness meanwhile: {count(meanwhile)}, slowest {slowest(meanwhile):.2f} s"
        )

    def _outside(self, sample: Sample) -> bool:
        return sample.ended_at < self.began or sample.sent_at > self.recovered


def endure(
    fault: AbstractContextManager[object],
    url: str,
    routes: Sequence[Route],
    *,
    requests: int,
    rate: float,
    noticed: str | None = None,
) -> Findings:
    """Send `rate` requests a second to an API before, during and after a fault, which lasts for `requests` of them.

    With `noticed` the fault lasts until readiness has reported that state too. This takes up to 3 s (1 s of its cache,
    2 s of a check) and longer on a busy machine.
    """
    with Load(url, routes, rate=rate) as load, Load(url, [READINESS], rate=PROBES_PER_SECOND) as probes:
        calm = round(_CALM_SECONDS * load.rate)
        load.send(calm)
        # So that the caches are filled before the fault, on a busy machine too.
        eventually("the first requests are answered", lambda: len(load.samples) >= calm)
        began = time.monotonic()
        with fault:
            load.send(requests)
            if noticed is not None:
                eventually(f"readiness says {noticed}", lambda: _said_since(probes.samples, began, noticed))
        ended = time.monotonic()
        eventually("the API is ready again", lambda: _ready_since(probes.samples, ended))
        recovered = min(_ready_since(probes.samples, ended))
        load.send(calm)
    return Findings(load.samples, probes.samples, began, ended, recovered)


def failed(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples that did not get the expected response."""
    return [sample for sample in samples if not sample.good]


def count(samples: Iterable[Sample]) -> dict[str, int]:
    """Return the number of samples by outcome, the most frequent first."""
    return dict(Counter(sample.outcome for sample in samples).most_common())


def slowest(samples: Iterable[Sample]) -> float:
    """Return the longest response time in seconds, 0 without samples."""
    return max((sample.seconds for sample in samples), default=0.0)


def _ready_since(probes: Sequence[Sample], moment: float) -> list[float]:
    return _said_since(probes, moment, READY)


def _said_since(probes: Sequence[Sample], moment: float, outcome: str) -> list[float]:
    return [probe.ended_at for probe in list(probes) if probe.sent_at >= moment and probe.outcome == outcome]

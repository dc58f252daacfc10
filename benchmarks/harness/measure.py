"""Measures targets in turn, and compares each with the first one of its scenario, round by round."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from harness.load import BadResponses, Generator, Request
from harness.servers import Server, cpu_seconds

RATIOS: Final = ("ratio", "min to max", "CPU ratio", "min to max", "p99 ratio")
COLUMNS: Final = ("", "requests/s", "µs CPU", "p99 ms", *RATIOS)


@dataclass
class Target:
    """One route of one server, with a sample for each round."""

    name: str
    server: Server
    request: Request
    ours: bool = False
    rates: list[float] = field(default_factory=list)
    """Responses per second."""
    cpu: list[float] = field(default_factory=list)
    """Microseconds of the server's CPU time per response."""
    p99: list[float] = field(default_factory=list)
    """Milliseconds."""

    def check(self) -> None:
        """Send the request once; raises `BadResponses` unless the response is JSON with a status 2xx."""
        answer = httpx.request(
            self.request.method,
            self.server.url + self.request.path,
            content=self.request.body or None,
            headers=self.request.all_headers,
        )
        if not answer.is_success or not isinstance(answer.json(), dict):
            raise BadResponses(f"{self.name}: {answer.status_code} {answer.text[:200]}")

    def measure(self, generator: Generator, seconds: int) -> None:
        """Add a sample."""
        spent = cpu_seconds(self.server.pid)
        load = generator.run(self.server.port, self.request, seconds)
        self.cpu.append((cpu_seconds(self.server.pid) - spent) / load.responses * 1e6)
        self.rates.append(load.responses / load.seconds)
        self.p99.append(load.p99 * 1e3)

    def forget(self) -> None:
        """Discard all samples."""
        for samples in (self.rates, self.cpu, self.p99):
            samples.clear()


@dataclass(frozen=True)
class Comparison:
    """A target and another one, round by round."""

    target: Target
    base: Target

    @property
    def rates(self) -> list[float]:
        """The throughput of the target in that of the base."""
        return [ours / base for ours, base in zip(self.target.rates, self.base.rates, strict=True)]

    @property
    def cpu(self) -> list[float]:
        """How many requests the target serves per CPU time in those of the base."""
        return [base / ours for ours, base in zip(self.target.cpu, self.base.cpu, strict=True)]

    @property
    def p99(self) -> list[float]:
        """The latency of the target in that of the base."""
        return [ours / base for ours, base in zip(self.target.p99, self.base.p99, strict=True)]

    def columns(self) -> list[object]:
        """Return the medians and ranges for a row of a table."""
        return [
            _ratio(statistics.median(self.rates)),
            _span(self.rates),
            _ratio(statistics.median(self.cpu)),
            _span(self.cpu),
            _ratio(statistics.median(self.p99)),
        ]


@dataclass(frozen=True)
class Scenario:
    """Routes that do the same work; the first one is the base of the ratios."""

    title: str
    targets: Sequence[Target]

    @property
    def comparisons(self) -> list[Comparison]:
        """Every target, the base included, compared with the base."""
        return [Comparison(target, self.targets[0]) for target in self.targets]

    def find(self, start: str) -> Target:
        """Return the target whose name starts so."""
        return next(target for target in self.targets if target.name.startswith(start))

    def rows(self) -> list[list[object]]:
        """Return a row for each target, with the medians of its rounds."""
        rows = []
        for each in self.comparisons:
            target = each.target
            name = f"**{target.name}**" if target.ours else target.name
            medians = [statistics.median(samples) for samples in (target.rates, target.cpu, target.p99)]
            rows.append([name, *medians, *each.columns()])
        return rows


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"  # noqa: PLR2004 -- a small ratio needs its second figure


def _span(values: Sequence[float]) -> str:
    return f"{_ratio(min(values))} to {_ratio(max(values))}"


def measure(
    scenarios: Sequence[Scenario], generator: Generator, *, rounds: int, seconds: int, report: Callable[[str], None]
) -> None:
    """Measure every target once in each round, so that other load of the machine affects all alike.

    The first round is a warm-up and is discarded. Every second round runs backwards, so that no target always follows
    the same one.
    """
    targets = [target for scenario in scenarios for target in scenario.targets]
    for target in targets:
        target.check()
    for number in range(rounds + 1):
        for target in targets if number % 2 == 0 else reversed(targets):
            target.measure(generator, seconds)
        if number == 0:
            for target in targets:
                target.forget()
        report(f"round {number} of {rounds}")

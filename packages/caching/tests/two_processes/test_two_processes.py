"""How long an invalidated value may be seen, by the table of the specification, in whatever order things happen."""

import logging
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from . import faults
from .faults import Break
from .machine import TwoProcesses
from .shortest import SHORTEST, Steps
from .truth import BrokenPromiseError
from .world import simulate

BRIEF = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)
LONG = settings(BRIEF, max_examples=5_000)
SEARCH = settings(BRIEF, max_examples=1_500, database=None, phases=[Phase.generate])

SEEDS: dict[Break, int] = {faults.publish_no_refused_change: 1}


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    simulate(monkeypatch)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(rules: settings, number: int | None = None) -> None:
    """Run histories, and print how many."""

    class Counted(TwoProcesses):
        histories = steps = 0

    started = time.monotonic()
    try:
        run_state_machine_as_test(Counted if number is None else seed(number)(Counted), settings=rules)
    finally:
        print(f"{Counted.histories} histories, {Counted.steps} steps, {time.monotonic() - started:.1f} s")


def follow(steps: Steps) -> None:
    """Take the steps of a history, and look after each as the search does."""
    machine = TwoProcesses()
    try:
        machine.begin(most=2, fault=None, under_way=[])
        steps(machine)
        machine.check_memory()
    finally:
        machine.teardown()


def test_nobody_reads_what_the_table_forbids() -> None:
    """No history of loads, changes and faults shows a process a value that is invalid for longer than it may be."""
    run(BRIEF)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_nobody_reads_what_the_table_forbids_in_many_histories() -> None:
    """The same, for longer."""
    run(LONG)


@pytest.mark.parametrize("steps", SHORTEST.values(), ids=lambda steps: steps.__name__)
def test_a_short_history_keeps_the_promises(steps: Steps) -> None:
    """With all mechanisms in place nothing is wrong with the histories that show the faults."""
    follow(steps)


@pytest.mark.parametrize("fault", SHORTEST, ids=lambda fault: fault.__name__)
def test_a_fault_put_back_is_seen(fault: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of the mechanisms a short history breaks a promise."""
    fault(monkeypatch)
    with pytest.raises(BrokenPromiseError) as caught:
        follow(SHORTEST[fault])
    print(caught.value)


@pytest.mark.parametrize(("fault", "number"), SEEDS.items(), ids=[fault.__name__ for fault in SEEDS])
def test_a_fault_put_back_is_found(fault: Break, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of the mechanisms the search finds a broken promise; the seed is one that finds it soon."""
    fault(monkeypatch)
    with pytest.raises(BrokenPromiseError) as caught:
        run(SEARCH, number)
    print(caught.value)

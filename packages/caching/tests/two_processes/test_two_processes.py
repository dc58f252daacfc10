"""How long an invalidated value may be seen, by the table of the specification, in whatever order things happen."""

import logging
import time
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from . import faults
from .faults import Break
from .machine import RULES, TwoProcesses, with_rules
from .shortest import SHORTEST, Steps
from .truth import BrokenPromiseError
from .world import simulate

# Processes that are killed, and connections that are cut while they are made, are closed by nobody.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LONG = settings(
    max_examples=5_000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)
# A history of at most 40 steps can be read as it is: shrinking it would take longer than a test may.
BRIEF = settings(LONG, max_examples=80, phases=[Phase.reuse, Phase.generate])
SEARCH = settings(BRIEF, max_examples=30, database=None, phases=[Phase.generate])

SEARCHES: Final[dict[Break, tuple[int, tuple[str, ...]]]] = {
    faults.publish_no_refused_change: (1, RULES),
    faults.trust_redis_while_it_refuses: (1, ("read", "write", "disturb_redis", "lose")),
    faults.ask_not_whether_redis_refuses: (12, ("read", "write", "disturb_process", "disturb_redis", "wait")),
    faults.join_without_comparing: (13, ("load", "finish_load", "write", "wait")),
    faults.compare_no_epoch: (7, ("read", "write", "lose")),
    faults.store_without_mark: (5, ("load", "finish_load", "read", "write", "lose")),
    faults.connected_by_flag: (1, RULES),
    faults.notice_no_lost_set: (1, RULES),
    faults.wait_for_no_others: (3, RULES),
    faults.one_channel_for_all_databases: (1, RULES),
    faults.keep_in_memory_whatever_comes: (1, RULES),
    faults.store_whatever_comes: (4, RULES),
    faults.publish_nothing: (1, RULES),
    faults.ignore_gaps: (1, RULES),
}
"""Seeds that find each soon; with all rules, or with those that it needs where these are many steps of few kinds."""


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    simulate(monkeypatch)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(limits: settings, number: int | None = None, rules: tuple[str, ...] = RULES) -> None:
    """Run histories, and print how many."""
    machine, started = with_rules(*rules), time.monotonic()
    try:
        run_state_machine_as_test(machine if number is None else seed(number)(machine), settings=limits)
    finally:
        print(f"{machine.histories} histories, {machine.steps} steps, {time.monotonic() - started:.1f} s")


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


@pytest.mark.parametrize("fault", SEARCHES, ids=lambda fault: fault.__name__)
def test_a_fault_put_back_is_found(fault: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of the mechanisms the search finds a broken promise."""
    fault(monkeypatch)
    first, rules = SEARCHES[fault]
    for number in range(first, first + 20):  # it is found later where the rules or the caches have changed
        try:
            run(SEARCH, number, rules)
        except BrokenPromiseError as broken:
            print(broken)
            return
    pytest.fail("nothing was found")

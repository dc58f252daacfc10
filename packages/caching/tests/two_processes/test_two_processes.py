"""How long an invalidated value may be read, by the table of the specification, in any order of steps."""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, get_args

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tequipy_caching.cache.recovery import TRUST_AFTER

from . import faults
from .faults import Break
from .history import KEYS
from .machine import RULES, TwoProcesses, with_rules
from .redis_model import Refusal
from .shortest import (
    SHORTEST,
    UNKNOWN_STATES,
    Steps,
    a_batch_with_an_older_value,
    a_call_before_the_message,
    a_change_of_a_late_process,
    a_change_that_is_not_replayed,
    a_read_before_the_replay,
    a_refused_delete,
    a_second_refusal_meanwhile,
    a_withheld_delete_and_a_second_refusal,
)
from .truth import BrokenPromiseError
from .world import depend_on_the_seed_alone, simulate

# Killed processes, and connections that are cut while they are made, are never closed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LONG = settings(max_examples=5_000, stateful_step_count=40, suppress_health_check=list(HealthCheck), print_blob=False)
# No shrinking: it would exceed the time limit of a test, and a history of at most 40 steps is readable.
BRIEF = settings(LONG, max_examples=80, database=None, phases=[Phase.generate])
SEARCH = settings(BRIEF, max_examples=30)
SEED: Final = 1

SEARCHES: Final[dict[Break, tuple[int, tuple[str, ...]]]] = {
    faults.do_not_publish_refused_changes: (1, RULES),
    faults.trust_redis_while_writes_are_refused: (1, ("read", "write", "disturb_redis", "lose")),
    faults.do_not_ask_whether_writes_are_refused: (12, ("read", "write", "disturb_process", "disturb_redis", "wait")),
    faults.join_without_comparing: (13, ("load", "finish_load", "write", "wait")),
    faults.join_loads_of_unknown_state: (1, ("load", "load_all", "finish_load", "write", "disturb_process")),
    faults.do_not_compare_the_epoch: (7, ("read", "write", "lose")),
    faults.store_without_mark: (5, ("load", "finish_load", "read", "write", "lose")),
    faults.connected_by_flag: (1, RULES),
    faults.do_not_detect_lost_sets: (1, RULES),
    faults.do_not_wait_for_other_processes: (3, RULES),
    faults.one_channel_for_all_databases: (1, RULES),
    faults.store_in_l1_after_an_invalidation: (1, RULES),
    faults.store_in_l2_after_an_invalidation: (4, RULES),
    faults.publish_nothing: (1, RULES),
    faults.ignore_gaps: (1, RULES),
}
"""Seeds that find each soon; with all rules, or with those that it needs where these are many steps of few kinds.

It lacks faults that need so many certain steps that the search seldom finds them; `SHORTEST` has these too."""


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    simulate(monkeypatch)
    depend_on_the_seed_alone(monkeypatch)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(limits: settings, number: int | None = None, rules: tuple[str, ...] = RULES) -> None:
    """Run histories, and print their number."""
    machine, started = with_rules(*rules), time.monotonic()
    try:
        run_state_machine_as_test(machine if number is None else seed(number)(machine), settings=limits)
    finally:
        print(f"{machine.histories} histories, {machine.steps} steps, {time.monotonic() - started:.1f} s")


def follow(steps: Steps) -> None:
    """Execute the steps of a history with the checks of the search."""
    machine = TwoProcesses()
    try:
        machine.begin(most=2, fault=None, under_way=[])
        steps(machine)
        machine.check_memory()
    finally:
        machine.teardown()


def test_no_process_reads_an_invalid_value_too_long() -> None:
    """In no history of loads, changes and faults does a process read a value that has been invalid for too long.

    The seed is fixed, so each run has the same histories, and a failure is due to a change of the code. Other histories
    are searched by the long form.
    """
    run(BRIEF, SEED)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_no_process_reads_an_invalid_value_too_long_in_many_histories() -> None:
    """The same test with more histories, other ones in each run."""
    run(LONG)


@pytest.mark.parametrize(
    "steps",
    [
        *SHORTEST.values(),
        *(a_withheld_delete_and_a_second_refusal, a_second_refusal_meanwhile, a_read_before_the_replay),
        *(a_batch_with_an_older_value, a_call_before_the_message, a_change_of_a_late_process),
    ],
    ids=lambda steps: steps.__name__,
)
def test_short_histories_keep_the_promises(steps: Steps) -> None:
    """With all mechanisms, no promise is broken in the histories that show the faults, and at limits of the table."""
    follow(steps)


@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        *SHORTEST.items(),
        (faults.do_not_ask_whether_writes_are_refused, a_second_refusal_meanwhile),
        (faults.do_not_replay, a_change_that_is_not_replayed),
    ],
    ids=lambda each: each.__name__,
)
def test_a_short_history_shows_each_fault(fault: Break, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of the mechanisms, a short history breaks a promise."""
    fault(monkeypatch)
    with pytest.raises(BrokenPromiseError) as caught:
        follow(steps)
    print(caught.value)


@pytest.mark.parametrize("steps", UNKNOWN_STATES, ids=lambda steps: steps.__name__)
def test_nobody_joins_a_load_of_unknown_state(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disconnected caller joins no load without a state to compare; if it does, it reads an invalidated value."""
    follow(steps)
    faults.join_loads_of_unknown_state(monkeypatch)
    with pytest.raises(BrokenPromiseError) as caught:
        follow(steps)
    print(caught.value)


@pytest.mark.parametrize("refusal", [refusal for refusal in get_args(Refusal) if refusal != "OOM"])
def test_a_short_history_shows_each_refusal(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each refusal of a delete needs that the change is published: with it no promise is broken, without it one is.

    Out of memory, no delete is refused.
    """
    follow(partial(a_refused_delete, refusal=refusal))
    faults.do_not_publish_refused_changes(monkeypatch)
    with pytest.raises(BrokenPromiseError):
        follow(partial(a_refused_delete, refusal=refusal))


@pytest.mark.parametrize("refusal", get_args(Refusal))
def test_a_server_with_older_data_may_refuse_writes(refusal: Refusal) -> None:
    """A server that is restarted from an older snapshot, and refuses writes at first, shows no deleted value later."""

    def steps(machine: TwoProcesses) -> None:
        for key in KEYS:
            machine.write(0, key, "delete")
        machine.disturb_redis(refusal)
        machine.lose("the last steps", 3)
        machine.wait(3.0)
        machine.mend(0)
        machine.wait(40.0)
        for process in range(2):
            machine.read(process, loading=False)

    follow(steps)


@pytest.mark.parametrize("refusal", get_args(Refusal))
def test_a_process_that_starts_among_refused_writes_publishes_its_deletes(refusal: Refusal) -> None:
    """The deletes of a process that starts while Redis refuses writes reach the other process at once."""

    def steps(machine: TwoProcesses) -> None:
        machine.disturb_redis(refusal)
        machine.lose("a process", 1)
        for key in KEYS:
            machine.write(1, key, "delete")

    follow(steps)


@pytest.mark.parametrize("refusal", get_args(Refusal))
def test_processes_recover_from_each_refusal(refusal: Refusal) -> None:
    """Once writes are accepted, changes are replayed, and 30 s later a process that started meanwhile uses Redis."""

    def seconds_until(probe: Callable[[], bool]) -> float:
        while not probe():
            assert machine.world.now < accepted + 2 * TRUST_AFTER
            machine.go_on(0.1)
        return machine.world.now - accepted

    machine = TwoProcesses()
    try:
        machine.begin(most=1, fault=None, under_way=[])
        machine.disturb_redis(refusal)
        machine.write(0, "a", "delete")
        machine.lose("a process", 1)
        machine.wait(3.0)
        machine.mend(0)
        accepted = machine.world.now
        one, late = machine.processes
        assert late.recovery.distrusts_all is (refusal != "OOM")
        replayed = seconds_until(lambda: not len(one.recovery))
        trusted = seconds_until(lambda: late.is_well)
        print(f"{refusal}: replayed after {replayed:.1f} s, trusted after {trusted:.1f} s")
        assert replayed <= TRUST_AFTER
        assert refusal == "OOM" or replayed < TRUST_AFTER <= trusted
        machine.read(1, loading=False)
    finally:
        machine.teardown()


@pytest.mark.prove
@pytest.mark.parametrize("fault", SEARCHES, ids=lambda fault: fault.__name__)
def test_the_search_finds_each_fault(fault: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of the mechanisms, the search finds a broken promise."""
    fault(monkeypatch)
    first, rules = SEARCHES[fault]
    # The first seed finds the fault at once, unless the rules or the caches have changed.
    for number in range(first, first + 20):
        try:
            run(SEARCH, number, rules)
        except BrokenPromiseError as broken:
            print(broken)
            return
    pytest.fail("nothing was found")

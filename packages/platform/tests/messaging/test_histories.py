"""Histories of outbox, inbox, relays, workers and releases over a virtual clock.

In each history processes take single steps, freeze, die and are replaced by another release, messages are lost, doubled
and late, servers are away, and the clock steps. Then all faults but refusals end, and every message must have had its
effect exactly once, or be a dead letter that has a reason and stands in the log. Outbox and inbox are the fakes, which
pass the contract suites beside this file. `pytest --randomly-seed=N`, with the number that pytest prints at its start,
repeats a failure.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tequipy_platform.messaging import deliveries

from .histories import bugs
from .histories.machine import Histories
from .histories.truth import BrokenPromiseError

SEARCH: Final = settings(
    deadline=None,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # no shrinking: a history has at most 30 rules and is readable
    database=None,
    print_blob=False,
)

BUGS: Final[tuple[bugs.Bug, ...]] = (
    bugs.settle_before_the_effect,
    bugs.store_late_outcomes,
    bugs.settle_events_of_newer_producers,
    bugs.count_no_deaths,
    bugs.count_copies_as_deaths,
    bugs.count_messages_handed_back_as_deaths,
    bugs.take_a_refusal_for_an_outage,
    bugs.run_old_copies,
    bugs.give_up_outcomes_when_the_database_fails,
    bugs.ignore_the_inbox,
    bugs.wait_for_no_release,
    bugs.log_no_dead_letters,
    bugs.miss_nothing,
    bugs.fan_out_under_new_ids,
)


@pytest.fixture(autouse=True)
def schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the format of messages that a process reads, which depends on its release."""
    monkeypatch.setattr(deliveries, "MESSAGE_SCHEMA", 1)


def run(number: int, histories: int) -> type[Histories]:
    """Run histories from a seed, and print what was explored."""

    class machine(Histories):  # noqa: N801 -- its name is shown to the reader of a failure
        ends: ClassVar[Counter[str]] = Counter()
        traces: ClassVar[list[Sequence[str]]] = []

    started = time.process_time()
    try:
        run_state_machine_as_test(seed(number)(machine), settings=settings(SEARCH, max_examples=histories))
    finally:
        seconds = time.process_time() - started
        print(
            f"seed {number}: {machine.histories} histories, {machine.steps} steps of processes, "
            f"messages {dict(machine.ends)}, {seconds:.1f} s of CPU"
        )
    return machine


def test_every_message_has_its_effect_once_or_is_a_dead_letter() -> None:
    """In no history is a message lost, does its effect happen twice, or does it end in silence."""
    machine = run(random.getrandbits(32), 200)
    assert machine.histories >= 200
    assert machine.ends["done"] > 0
    assert machine.ends["dead"] > 0


@pytest.mark.prove
@pytest.mark.timeout(3000)
def test_every_message_has_its_effect_once_or_is_a_dead_letter_in_many_histories() -> None:
    """The same test with 10,000 histories."""
    machines = [run(random.getrandbits(32), 500) for _ in range(20)]
    histories, steps = (sum(getattr(machine, name) for machine in machines) for name in ("histories", "steps"))
    ends = sum((machine.ends for machine in machines), Counter[str]())
    print(f"{histories} histories, {steps} steps of processes, messages {dict(ends)}")
    assert histories >= 10_000


def test_a_seed_repeats_its_histories() -> None:
    """The same seed gives the same steps of all processes, so that each failure can be repeated."""
    first, second = (run(7, 20).traces for _ in range(2))
    assert first == second
    assert sum(map(len, first)) > 1000


def run_until_found() -> None:
    for number in range(1, 51):
        run(number, 20)  # many short searches find a bug sooner than few long ones


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_is_found(bug: bugs.Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bug put in on purpose, one of few histories breaks a promise."""
    bug(monkeypatch)
    with pytest.raises(BrokenPromiseError) as caught:
        run_until_found()
    print(f"{bug.__name__}: {caught.value}")

"""Two releases side by side: whatever is replaced first, no message is lost or becomes a dead letter."""

import time
from collections import Counter
from itertools import permutations

import pytest

from tequipy_platform import Event
from tequipy_platform.messaging import SqlUnitOfWork

from .releases import Releases

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]
MESSAGES = 40
ORDERS = [
    pytest.param(
        order, id="-".join(order), marks=[pytest.mark.quick] if order[0] != "relay" and order[1] == "relay" else []
    )
    for order in permutations(["api", "relay", "worker"])
]


def add_batch(releases: Releases, release: str, numbers: range) -> Counter[str]:
    """Commit what a producer of a release sends, and return the effects that it must have."""
    expected: Counter[str] = Counter()

    def write(work: SqlUnitOfWork) -> None:
        for number in numbers:
            if release == "OLD":
                work.outbox.add("release.effect", number=number)
            else:
                work.outbox.add("release.effect", number=number, more="field")
            work.outbox.publish(Event("release.happened", {"number": number}))
            if release == "NEW":
                work.outbox.add("release.new_task", number=number)
                work.outbox.publish(Event("release.new_event", {"number": number + 10_000}))

    releases.add(write, release)
    for number in numbers:
        expected[f"release.effect {number}"] += 1
        expected[f"release.listener {number}"] += 1
        if release == "NEW":
            expected[f"release.new_task {number}"] += 1
            expected[f"release.new_listener {number}"] += 1
            expected[f"release.new_listener {number + 10_000}"] += 1
    return expected


@pytest.mark.parametrize("order", ORDERS)
def test_a_roll_in_any_order_loses_nothing(releases: Releases, order: tuple[str, ...]) -> None:
    """During a roll under load every message of either release has its effects exactly once, and none is dead."""
    for role in ("relay", "worker"):
        releases.start(f"old {role}", "relay" if role == "relay" else "run", "OLD")
    expected, number, producer = Counter[str](), 0, "OLD"
    for replaced in (None, *order):
        if replaced == "api":
            producer = "NEW"
        elif replaced is not None:  # for a moment both releases run
            releases.start(f"new {replaced}", "relay" if replaced == "relay" else "run", "NEW")
        for _ in range(3):
            expected += add_batch(releases, producer, range(number, number + MESSAGES // 4))
            number += MESSAGES // 4
            time.sleep(0.3)  # the load of a moment
        if replaced in {"relay", "worker"}:
            releases.stop(f"old {replaced}")
    began = time.monotonic()
    releases.settle(within=120)
    effects, states = releases.effects(), releases.states()
    # An event of the old release that the new relay fanned out reaches the new subscriber as well.
    surplus = effects - expected
    assert {name.split()[0] for name in surplus} <= {"release.new_listener"}
    assert set(effects.values()) == {1}
    print(
        f"\n{'-'.join(order)}: {expected.total()} effects expected, {(expected - effects).total()} lost, "
        f"{states['dead']} dead letters, {time.monotonic() - began:.1f} s after the last one was sent"
    )
    assert expected - effects == Counter()
    assert set(states) == {"done"}

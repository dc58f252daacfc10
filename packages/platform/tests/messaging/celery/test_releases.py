"""Two releases side by side: whatever is replaced first, no message is lost or becomes a dead letter."""

import io
import os
import subprocess
import tarfile
import time
import tomllib
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest

from tequipy_platform import Event
from tequipy_platform.messaging import SqlUnitOfWork

from .releases import Releases

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]
MESSAGES = 40
ROOT = Path(__file__).parents[5]
RELEASES = ROOT / ".ci/releases.toml"
"""The commit of each release, the last one at the end."""
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
    roll(releases, order)


@pytest.fixture
def last_release(releases: Releases, tmp_path: Path) -> str:
    """Make the old processes run the packages of the last release; return its version."""
    published = tomllib.loads(RELEASES.read_text(encoding="utf-8")) if RELEASES.exists() else {}
    if not published:
        pytest.skip("nothing has been released yet")
    version, commit = list(published.items())[-1]
    command = ["git", "archive", commit, "packages"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the commit of {version} is not in this clone")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as sources:
        sources.extractall(tmp_path / "sources", filter="data")
    folders = sorted(str(folder) for folder in (tmp_path / "sources" / "packages").glob("*/src"))
    releases.sources["OLD"] = os.pathsep.join(folders)
    return version


@pytest.mark.parametrize("order", ORDERS)
def test_the_last_release_and_this_one_run_side_by_side(
    releases: Releases, last_release: str, order: tuple[str, ...]
) -> None:
    """Relay and worker of the last release work beside those of this one, whatever is replaced first."""
    print(f"\nfrom {last_release}:")
    roll(releases, order)


def roll(releases: Releases, order: tuple[str, ...]) -> None:
    """Replace producer, relay and worker in the given order under load, and check the effects."""
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

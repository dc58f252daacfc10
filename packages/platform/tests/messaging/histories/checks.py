"""What every message must have come to in the end."""

from datetime import timedelta
from typing import Final

from tequipy_platform import RetryPolicy
from tequipy_platform.database.ids import derived_id
from tequipy_platform.messaging.message_log import FOREIGN_TASK
from tequipy_platform.messaging.unpublished import is_newer
from tequipy_platform.testing import MemoryMessage

from .releases import MAIL
from .truth import BrokenPromiseError
from .world import World

HOUR: Final = timedelta(hours=1)


def check(world: World) -> None:
    """Compare all settled messages with the truth."""
    _check_killers(world)
    if lost := set(world.committed) - set(world.messages.rows):
        raise BrokenPromiseError(f"lost: {lost}")
    for row in list(world.messages.rows.values()):
        if row.event is not None:
            _check_event(world, row)
        elif row.state == "done":
            _check_done(world, row)
        elif row.state == "dead":
            _check_dead(world, row)
        else:
            raise BrokenPromiseError(f"{row.id} ended as {row.state}")


def _check_event(world: World, row: MemoryMessage) -> None:
    producer = next(each for each in world.releases if each.version == row.producer_version)
    tasks = {child.task for child in world.messages.rows.values() if child.task and _is_child(row, child)}
    missing = producer.subscribers(row.event or "") - tasks
    level = "ERROR" if row.state == "dead" else "WARNING"
    if missing and (level, str(row.id)) not in world.truth.logged:
        raise BrokenPromiseError(f"event {row.id} did not reach {', '.join(sorted(missing))}, and nothing says so")
    if missing and not world.truth.clock_stepped and not _waited(row):
        raise BrokenPromiseError(f"event {row.id} did not wait for its subscribers")
    may_be_newer = any(is_newer(row.producer_version, than=release.version) for release in world.releases)
    if row.state == "dead" and not (may_be_newer and _waited(row)) and not world.truth.clock_stepped:
        raise BrokenPromiseError(f"event {row.id} is a dead letter without a reason")


def _check_done(world: World, row: MemoryMessage) -> None:
    effects = world.truth.sent if row.task == MAIL.name else world.truth.effects
    if effects[row.id] == 0:
        raise BrokenPromiseError(f"{row.id} ({row.task}) is done without its effect")


def _check_dead(world: World, row: MemoryMessage) -> None:
    name = f"{row.id} ({row.task}, {row.error})"
    if row.id in world.truth.succeeded:
        raise BrokenPromiseError(f"{name} is a dead letter after an attempt has succeeded")
    if row.task == FOREIGN_TASK:
        return
    if ("ERROR", str(row.id)) not in world.truth.logged and row.id not in world.truth.killed_unlogged:
        raise BrokenPromiseError(f"{name} is a dead letter of which no log tells")
    policy = world.truth.policies[row.task or ""]
    error = row.error or ""
    if error.startswith(("no task", "the message has format", "the handler does not accept", "the broker refuses")):
        has_reason = _waited(row)
    elif error.startswith("its process ended"):
        has_reason = row.deaths >= policy.deaths
    else:
        exhausted = policy.attempts is not None and row.failed_attempts >= policy.attempts
        has_reason = exhausted or _failed_long(row, policy)
    if not has_reason and not world.truth.clock_stepped:
        raise BrokenPromiseError(f"{name} is a dead letter without a reason")


def _check_killers(world: World) -> None:
    """Check that a task which always kills its process ran no more often than its policy allows."""
    for row in world.messages.rows.values():
        policy = world.truth.policies.get(row.task or "")
        if policy is not None and row.task == "test.kill" and world.truth.started[row.id] > policy.deaths:
            raise BrokenPromiseError(f"{row.id} killed {world.truth.started[row.id]} processes")


def _is_child(parent: MemoryMessage, child: MemoryMessage) -> bool:
    return derived_id(parent.id, child.task or "") == child.id


def _waited(row: MemoryMessage) -> bool:
    return row.waiting_since is not None and row.settled_at is not None and row.settled_at - row.waiting_since >= HOUR


def _failed_long(row: MemoryMessage, policy: RetryPolicy) -> bool:
    if row.failing_since is None or row.settled_at is None:
        return False
    return row.settled_at - row.failing_since >= policy.lifetime

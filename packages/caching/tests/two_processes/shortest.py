"""For each fault of `faults.py`, a short history that shows it, as the search finds it after shrinking."""

from collections.abc import Callable
from typing import Final

from . import faults
from .machine import TwoProcesses

Steps = Callable[[TwoProcesses], None]


def a_refused_delete(machine: TwoProcesses, refusal: str = "READONLY") -> None:
    machine.disturb_redis(refusal)
    machine.write(0, "a", "delete")
    machine.wait(3.0)


def a_start_meanwhile(machine: TwoProcesses) -> None:
    machine.disturb_redis("READONLY")
    machine.write(0, "a", "delete")
    machine.lose("a process", 1)
    machine.read(1, loading=False)


def a_withheld_delete_and_a_second_refusal(machine: TwoProcesses) -> None:
    """A process reads a value whose refused delete nobody can send to Redis; then Redis refuses writes again."""
    machine.disturb_redis("READONLY")
    machine.write(1, "a", "delete")
    machine.disturb_process(1, "is suspended")
    machine.mend(0)  # Redis accepts writes
    machine.disturb_process(0, "is isolated")
    machine.lose("a process", 1)
    machine.mend(0)  # of the suspended process, which was killed
    machine.read(1, loading=True)
    machine.disturb_redis("OOM")


def a_cut_meanwhile(machine: TwoProcesses) -> None:
    machine.disturb_process(1, "is cut")
    machine.disturb_redis("READONLY")
    machine.write(0, "a", "delete")
    machine.wait(3.0)
    machine.read(1, loading=False)


def a_second_refusal_meanwhile(machine: TwoProcesses) -> None:
    """Redis accepts writes between two refusals, too shortly for a replay."""
    machine.disturb_process(1, "is cut")
    machine.disturb_redis("READONLY")
    machine.write(0, "a", "delete")
    machine.mend(1)  # Redis accepts writes
    machine.disturb_redis("READONLY")
    machine.read(1, loading=False)


def a_read_before_the_replay(machine: TwoProcesses) -> None:
    """A disconnected process asks Redis when it accepts writes again, and before the refused delete is replayed."""
    machine.disturb_process(1, "is cut")
    machine.disturb_redis("READONLY")
    machine.write(0, "a", "delete")
    machine.mend(1)  # Redis accepts writes
    machine.read(1, loading=False)


def a_read_after_the_replay(machine: TwoProcesses) -> None:
    a_read_before_the_replay(machine)
    machine.wait(3.0)
    machine.read(1, loading=False)


def a_lost_tombstone(machine: TwoProcesses) -> None:
    machine.lose("memory", 0)
    machine.lose("values", 0)
    machine.load(0, "b", brief=False)
    machine.write(1, "b", "delete")
    machine.lose("values", 0)
    machine.finish_load(0, well=True)
    machine.read(1, loading=False)


def a_race(machine: TwoProcesses) -> None:
    machine.lose("memory", 0)
    machine.lose("values", 0)
    machine.load(0, "b", brief=False)
    machine.write(1, "b", "delete")
    machine.finish_load(0, well=True)
    machine.read(1, loading=False)


def a_slow_answer(machine: TwoProcesses) -> None:
    machine.lose("memory", 1)
    machine.disturb_process(1, "is held up")
    machine.read(1, loading=False)
    machine.arrive(0)
    machine.arrive(0)
    machine.write(0, "a", "delete")
    machine.write(0, "b", "delete")
    machine.mend(0)


def a_pause(machine: TwoProcesses) -> None:
    machine.disturb_process(1, "is suspended")
    machine.write(0, "a", "delete")
    machine.wait(3.0)


def a_load_under_way(machine: TwoProcesses) -> None:
    machine.lose("memory", 1)
    machine.lose("values", 0)
    machine.disturb_process(1, "is cut")
    machine.load(1, "b", brief=False)
    machine.write(0, "b", "delete")
    machine.wait(3.0)
    machine.load(1, "b", brief=False)
    machine.finish_load(0, well=True)


def a_load_without_a_generation(machine: TwoProcesses) -> None:
    """Out of memory, a restarted Redis cannot give the cache a new generation, so the load knows no state."""
    machine.disturb_process(1, "is cut")
    machine.disturb_redis("OOM")
    machine.lose("the last steps", 1)
    machine.load(1, "b", brief=False)
    machine.write(0, "a", "clear")
    machine.wait(3.0)
    machine.load(1, "b", brief=False)
    machine.finish_load(0, well=True)


def a_load_without_a_mark(machine: TwoProcesses) -> None:
    machine.lose("memory", 1)
    machine.lose("values", 0)
    machine.disturb_redis("OOM")
    machine.load(1, "b", brief=False)
    machine.disturb_process(1, "is cut")
    machine.write(0, "b", "delete")
    machine.wait(3.0)
    machine.load(1, "b", brief=False)
    machine.finish_load(0, well=True)


def a_load_from_before_redis_was_back(machine: TwoProcesses) -> None:
    machine.disturb_process(1, "is cut")
    machine.lose("memory", 1)
    machine.disturb_redis("down")
    machine.load(1, "b", brief=False)
    machine.mend(1)
    machine.wait(3.0)
    machine.write(0, "b", "delete")
    machine.load(1, "b", brief=False)
    machine.finish_load(0, well=True)


def a_load_while_writes_are_refused(machine: TwoProcesses) -> None:
    machine.disturb_process(1, "is cut")
    machine.disturb_redis("READONLY")
    machine.load(1, "b", brief=False)
    machine.write(0, "b", "delete")
    machine.load(1, "b", brief=False)
    machine.finish_load(0, well=True)


def a_load_that_has_found_a_value(machine: TwoProcesses) -> None:
    machine.lose("memory", 1)
    machine.disturb_process(1, "is cut")
    machine.write(1, "a", "delete")
    machine.load_all(1)
    machine.write(0, "b", "delete")
    machine.load(1, "b", brief=False)
    machine.finish_load(0, well=True)


def a_lookup_under_way(machine: TwoProcesses) -> None:
    machine.lose("memory", 1)
    machine.disturb_process(1, "is cut")
    machine.disturb_process(1, "is held up")
    machine.load(1, "b", brief=False)
    machine.arrive(0)
    machine.write(0, "b", "delete")
    machine.load(1, "b", brief=False)
    machine.mend(1)


def a_load_whose_state_cannot_be_read(machine: TwoProcesses) -> None:
    machine.lose("memory", 1)
    machine.lose("values", 0)
    machine.disturb_process(1, "is cut")
    machine.load(1, "b", brief=False)
    machine.disturb_redis("NOPERM")
    machine.write(0, "b", "delete")
    machine.load(1, "b", brief=False)
    machine.finish_load(0, well=True)


def a_batch_with_an_older_value(machine: TwoProcesses) -> None:
    """A batch joins two loads, and the one of the key `b` has also found an older value of the key `a`."""
    machine.lose("memory", 0)
    machine.write(1, "b", "delete")
    machine.load_all(0)
    machine.write(0, "a", "delete")
    machine.load(0, "a", brief=False)
    machine.load_all(0)
    machine.finish_load(1, well=True)
    machine.finish_load(0, well=True)


def a_call_before_the_message(machine: TwoProcesses) -> None:
    """A process that goes on joins a load before it reads the message of a delete, and the load ends later."""
    machine.lose("memory", 1)
    machine.lose("values", 0)
    machine.load(1, "b", brief=False)
    machine.disturb_process(1, "is suspended")
    machine.write(0, "b", "delete")
    machine.load(1, "b", brief=False)
    machine.mend(0)
    machine.finish_load(0, well=True)


def a_change_of_a_late_process(machine: TwoProcesses) -> None:
    """A process is suspended while its request is held up, so its change times out; no message tells the other one."""
    machine.disturb_process(0, "is held up")
    machine.write(0, "b", "clear")
    machine.disturb_process(0, "is suspended")
    machine.wait(1.0)
    machine.mend(1)


def a_change_that_is_not_replayed(machine: TwoProcesses) -> None:
    a_change_of_a_late_process(machine)
    machine.wait(3.0)


def a_lost_set(machine: TwoProcesses) -> None:
    machine.lose("the set", 0)
    machine.wait(1.0)
    machine.lose("a process", 1)
    machine.wait(3.0)


def a_lost_set_and_a_start(machine: TwoProcesses) -> None:
    machine.lose("the set", 0)
    machine.lose("a process", 1)


def another_database(machine: TwoProcesses) -> None:
    machine.add_member(2)


def an_older_snapshot(machine: TwoProcesses) -> None:
    machine.write(0, "a", "delete")
    machine.lose("the last steps", 1)
    machine.wait(3.0)
    machine.read(1, loading=False)


def a_delete(machine: TwoProcesses) -> None:
    machine.write(0, "a", "delete")


def a_short_cut(machine: TwoProcesses) -> None:
    machine.disturb_process(1, "is cut")
    machine.write(0, "a", "delete")
    machine.mend(0)
    machine.wait(3.0)


SHORTEST: Final[dict[faults.Break, Steps]] = {
    faults.do_not_publish_refused_changes: a_refused_delete,
    faults.trust_redis_while_writes_are_refused: a_start_meanwhile,
    faults.do_not_ask_whether_writes_are_refused: a_cut_meanwhile,
    faults.do_not_replay: a_read_after_the_replay,
    faults.store_without_mark: a_lost_tombstone,
    faults.connected_by_flag: a_pause,
    faults.join_without_comparing: a_load_under_way,
    faults.join_loads_of_unknown_state: a_load_without_a_generation,
    faults.join_during_the_lookup: a_lookup_under_way,
    faults.join_without_an_answer: a_load_whose_state_cannot_be_read,
    faults.do_not_detect_lost_sets: a_lost_set,
    faults.do_not_wait_for_other_processes: a_lost_set_and_a_start,
    faults.one_channel_for_all_databases: another_database,
    faults.do_not_compare_the_epoch: an_older_snapshot,
    faults.store_in_l1_after_an_invalidation: a_slow_answer,
    faults.store_in_l2_after_an_invalidation: a_race,
    faults.publish_nothing: a_delete,
    faults.ignore_gaps: a_short_cut,
}

UNKNOWN_STATES: Final[tuple[Steps, ...]] = (
    a_load_without_a_generation,
    a_load_without_a_mark,
    a_load_from_before_redis_was_back,
    a_load_while_writes_are_refused,
    a_load_that_has_found_a_value,
)
"""The ways in which a load has no state that a disconnected caller could compare."""

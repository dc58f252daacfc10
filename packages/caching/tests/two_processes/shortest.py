"""For each fault of `faults.py` a short history that shows it: what the search finds, once it is shrunk."""

from collections.abc import Callable
from typing import Final

from . import faults
from .machine import TwoProcesses

Steps = Callable[[TwoProcesses], None]


def a_refused_delete(machine: TwoProcesses) -> None:
    machine.disturb_redis("READONLY")
    machine.write(0, "a", "delete")
    machine.wait(3.0)


def a_start_meanwhile(machine: TwoProcesses) -> None:
    machine.disturb_redis("READONLY")
    machine.write(0, "a", "delete")
    machine.lose("a process", 1)
    machine.read(1, loading=False)


def a_cut_meanwhile(machine: TwoProcesses) -> None:
    machine.disturb_process(1, "is cut")
    machine.disturb_redis("READONLY")
    machine.write(0, "a", "delete")
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
    machine.disturb_process(1, "stands still")
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
    faults.publish_no_refused_change: a_refused_delete,
    faults.trust_redis_while_it_refuses: a_start_meanwhile,
    faults.ask_not_whether_redis_refuses: a_cut_meanwhile,
    faults.store_without_mark: a_lost_tombstone,
    faults.connected_by_flag: a_pause,
    faults.join_without_comparing: a_load_under_way,
    faults.notice_no_lost_set: a_lost_set,
    faults.wait_for_no_others: a_lost_set_and_a_start,
    faults.one_channel_for_all_databases: another_database,
    faults.compare_no_epoch: an_older_snapshot,
    faults.keep_in_memory_whatever_comes: a_slow_answer,
    faults.store_whatever_comes: a_race,
    faults.publish_nothing: a_delete,
    faults.ignore_gaps: a_short_cut,
}

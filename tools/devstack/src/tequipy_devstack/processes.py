"""Child processes that cannot outlive us: how their command lines are made and how whole families get signals."""

import contextlib
import os
import pwd
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from signal import Signals

import psutil


class DevstackError(Exception):
    """The local stack cannot do what was asked; the message says why and what to do about it."""


def tied(command: Sequence[str | Path], *, death_signal: Signals, unprivileged: bool = False) -> list[str]:
    """Return the command line that runs `command` under the same pid and sends it `death_signal` when we die.

    The kernel watches the *thread* that starts the process (prctl(2), PR_SET_PDEATHSIG): start it from the main one.
    Start it with `process_group=0`, too: a Ctrl-C then reaches us alone, and the kernel wakes up what was frozen
    when we died (setpgid(2): stopped members of an orphaned group get SIGHUP and SIGCONT), so that the signal arrives.

    `unprivileged` matters for root alone: the command then runs as `nobody`, but reads and searches past permissions
    (CAP_DAC_OVERRIDE), so that a home folder closed to others may hold the virtual environment and the data.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise DevstackError("the command setpriv is missing: install the package util-linux")
    identity: list[str] = []
    if unprivileged and os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        identity = [
            f"--reuid={nobody.pw_uid}",
            f"--regid={nobody.pw_gid}",
            "--clear-groups",
            "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override",
            # Else access(2) leaves the capability out, and PostgreSQL asks that about its own program.
            "--securebits=+no_setuid_fixup",
        ]
    return [setpriv, *identity, f"--pdeathsig={death_signal.name.removeprefix('SIG')}", "--", *map(str, command)]


def make_private_folder(folder: Path) -> None:
    """Make a folder that only the user of `tied(…, unprivileged=True)` (and root) may enter."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)


def find_process(pid: int, folder: Path) -> psutil.Process | None:
    """Return the live process with this pid, provided that its command line names `folder`: pids are used again."""
    try:
        process = psutil.Process(pid)
        named = any(str(folder) in argument for argument in process.cmdline())
    except psutil.Error:
        return None
    return process if named else None


def family(pid: int) -> list[psutil.Process]:
    """Return the descendants of a process and, last, the process itself; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def freeze_family(pid: int) -> list[psutil.Process]:
    """Stop a process and all its descendants by SIGSTOP and return them, the process itself last."""
    for leader in family(pid)[-1:]:
        _freeze(leader)  # so that it starts no more children, and reacts to nothing, while we count them
    members = family(pid)
    for member in members:
        _freeze(member)
    return members


def _freeze(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()
        # The signal is sent; that it has been obeyed takes a moment.
        while process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
            time.sleep(0.001)


def signal_family(pid: int, number: Signals) -> list[psutil.Process]:
    """Send a signal to a process and all its descendants, at one stroke, and return them."""
    members = freeze_family(pid)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(number)
    return members


def await_end(processes: Sequence[psutil.Process], *, timeout: float) -> list[psutil.Process]:
    """Wait until the processes have ended, at most `timeout` seconds, and return those that have not.

    A zombie has ended: when its parent reads its status is not our affair (psutil's own wait takes another view).
    """
    deadline = time.monotonic() + timeout
    while (left := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def lives(process: psutil.Process) -> bool:
    """Tell whether a process still runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(processes: Sequence[psutil.Process]) -> None:
    """End the processes by SIGKILL, those that still run, and wait for it."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    await_end(processes, timeout=5)


def end_process(process: psutil.Process, polite: Signals, *, patience: float) -> None:
    """End a process and its descendants: first politely, what is left after `patience` seconds by SIGKILL."""
    members = signal_family(process.pid, Signals.SIGCONT)  # what is frozen cannot be polite
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(polite)
    kill(await_end(members, timeout=patience))

"""Child processes that end with their parent, and signals to processes together with their descendants."""

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
    """The local stack failed; the message says why and what to do."""


def tied(command: Sequence[str | Path], *, death_signal: Signals, unprivileged: bool = False) -> list[str]:
    """Return a command line that runs `command` under the same pid and sends it `death_signal` when its parent dies.

    The kernel watches the *thread* that starts the process (prctl(2), PR_SET_PDEATHSIG), so start it from the main
    thread. Also start it with `process_group=0`: Ctrl-C then reaches only the parent, and if the parent dies, a frozen
    child is woken to receive the signal (setpgid(2): stopped members of an orphaned group get SIGHUP and SIGCONT).

    `unprivileged` concerns root only: the command then runs as `nobody`, but may read all files (CAP_DAC_OVERRIDE), so
    that the virtual environment and the data can be in a home folder that others may not enter.
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
            # Without it access(2) ignores the capability, and PostgreSQL checks its own program that way.
            "--securebits=+no_setuid_fixup",
        ]
    return [setpriv, *identity, f"--pdeathsig={death_signal.name.removeprefix('SIG')}", "--", *map(str, command)]


def make_private_folder(folder: Path) -> None:
    """Create a folder that only the user of `tied(…, unprivileged=True)` and root may enter."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)


def find_process(pid: int, folder: Path) -> psutil.Process | None:
    """Return the live process with this pid if its command line contains `folder`, because pids are reused."""
    try:
        process = psutil.Process(pid)
        named = any(str(folder) in argument for argument in process.cmdline())
    except psutil.Error:
        return None
    return process if named else None


def family(pid: int) -> list[psutil.Process]:
    """Return the descendants of a process and, as the last item, the process itself; empty if it has ended."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def freeze_family(pid: int) -> list[psutil.Process]:
    """Stop a process and all its descendants by SIGSTOP; return them, the process itself last."""
    for leader in family(pid)[-1:]:
        _freeze(leader)  # so that it starts no further children meanwhile
    members = family(pid)
    for member in members:
        _freeze(member)
    return members


def _freeze(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()
        # The process stops some time after the signal was sent.
        while process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
            time.sleep(0.001)


def signal_family(pid: int, number: Signals) -> list[psutil.Process]:
    """Send a signal to a process and all its descendants at once; return them."""
    members = freeze_family(pid)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(number)
    return members


def await_end(processes: Sequence[psutil.Process], *, timeout: float) -> list[psutil.Process]:
    """Wait until the processes have ended, at most `timeout` seconds; return those that have not.

    A zombie counts as ended (psutil's own wait waits for its parent to read its status).
    """
    deadline = time.monotonic() + timeout
    while (left := [process for process in processes if is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def is_running(process: psutil.Process) -> bool:
    """Return whether a process is running, that is, exists and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(processes: Sequence[psutil.Process]) -> None:
    """End those of the processes that are running by SIGKILL, and wait for their end."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    await_end(processes, timeout=5)


def end_process(process: psutil.Process, polite: Signals, *, timeout: float) -> None:
    """End a process and its descendants by the `polite` signal, and by SIGKILL after `timeout` seconds."""
    members = signal_family(process.pid, Signals.SIGCONT)  # a frozen process cannot handle the signal
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(polite)
    kill(await_end(members, timeout=timeout))

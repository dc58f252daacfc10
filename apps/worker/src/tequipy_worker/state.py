"""The state folder of the worker's processes: one folder for each kind of process, locked while it runs.

`<state folder>/run`, `/beat` and `/relay` contain the file `lock`, which the process locks (flock(2)) for its life, and
the file `heartbeat`; `run` has the folders `metrics` and `children` too. Standard library only, because the health
command must start quickly.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus_client reads at import; if it is set, metrics are kept in files."""
SETTING: Final = "TEQUIPY_WORKER__STATE_FOLDER"
DEFAULT_NAME: Final = "tequipy-worker"
"""The name of the state folder in the folder of temporary files, if the setting is not given."""
KINDS: Final = ("run", "beat", "relay")
INTERVAL: Final = 5.0
"""Seconds between two heartbeats."""
READY: Final = "ready"
"""The text of a heartbeat of a process whose services answer."""
_CLAIM_SECONDS: Final = 1.0
"""How long a process waits for a lock: an earlier process may be ending, and `health` holds a lock for microseconds."""


class UnusableFolderError(Exception):
    """The folder belongs to another user, who could change its files, or to another process."""


@contextmanager
def claimed_folder(state_folder: Path, kind: str) -> Iterator[Path]:
    """Yield the folder of a process of this kind, created if missing, which no other process can claim meanwhile.

    Raises `UnusableFolderError` when the state folder belongs to another user or the lock to another process, and
    `OSError` when the folder cannot be created.
    """
    folder = _own_folder(_own_folder(state_folder) / kind)
    with (folder / "lock").open("a+", encoding="ascii") as lock:
        _lock(lock, folder)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        heartbeat_file(folder).unlink(missing_ok=True)
        yield folder


def heartbeat_file(folder: Path) -> Path:
    """Return the file that the process of this folder touches while it works."""
    return folder / "heartbeat"


def children_folder(folder: Path) -> Path:
    """Return the folder of the heartbeats of child processes, each locked by its child."""
    return folder / "children"


def is_locked(file: Path) -> bool:
    """Return whether a living process holds the lock of a file; False if there is no such file."""
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def empty_folder(folder: Path) -> Path:
    """Return the folder after removing its content, which an earlier process has left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _own_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid not in {0, os.geteuid()}:
        raise UnusableFolderError(f"{folder} belongs to another user: set {SETTING} to your own")
    return folder


def _lock(lock: IO[str], folder: Path) -> None:
    deadline = time.monotonic() + _CLAIM_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.seek(0)
                holder = lock.read().strip()
                raise UnusableFolderError(
                    f"{folder} is used by another process ({holder}): set {SETTING} to a folder of its own"
                ) from None
            time.sleep(0.05)
        else:
            return

"""The state folder of the worker's processes: heartbeat, metrics."""

import os
import shutil
from pathlib import Path

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus_client reads at import; if it is set, metrics are kept in files."""


class ForeignFolderError(Exception):
    """The folder belongs to another user, who could change the files in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} belongs to another user: set TEQUIPY_WORKER__STATE_FOLDER to your own")


def claim_folder(folder: Path) -> Path:
    """Return the folder, created for this user only if it is missing; raises `ForeignFolderError` for another's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid not in {0, os.geteuid()}:
        raise ForeignFolderError(folder)
    return folder


def empty_folder(folder: Path) -> Path:
    """Return the folder after removing its content, which an earlier process has left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder

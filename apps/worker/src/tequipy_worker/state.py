"""The folder in which a worker's processes keep what they remember: heartbeat, schedule, metrics."""

import os
import shutil
from pathlib import Path


class ForeignFolderError(Exception):
    """The folder belongs to another user, who could write what we read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} belongs to another user: set TEQUIPY_WORKER__STATE_FOLDER to your own")


def claim_folder(folder: Path) -> Path:
    """Return the folder, made for this user alone if it is missing; raises `ForeignFolderError` if it is another's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid not in {0, os.geteuid()}:
        raise ForeignFolderError(folder)
    return folder


def empty_folder(folder: Path) -> Path:
    """Return the folder, with nothing in it: what an earlier process left there is over."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder

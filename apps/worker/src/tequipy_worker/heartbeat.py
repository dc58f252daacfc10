"""The worker's heartbeat: a file that is touched while the worker's own loop turns."""

import time
from pathlib import Path
from typing import Final

from celery import Celery, bootsteps
from celery.worker import WorkController

from tequipy_worker.state import claim_folder

INTERVAL: Final = 5.0
"""Seconds between two beats."""
ALIVE_WITHIN: Final = 30.0
"""A worker whose last beat is older than this many seconds hangs."""


def wire_heartbeat(celery: Celery, file: Path) -> None:
    """Have the worker's main process touch `file`, for `tequipy-worker health` to see."""

    class Heartbeat(bootsteps.StartStopStep):
        """Beats by the timer that the consumer itself lives by: when that stands still, so does the file."""

        requires = ("celery.worker.components:Timer",)

        def start(self, worker: WorkController) -> None:
            """Beat once, and from then on by the timer."""
            claim_folder(file.parent)
            file.touch()
            self.beat = worker.timer.call_repeatedly(INTERVAL, file.touch)  # type: ignore[union-attr]  # -- celery-types does not know kombu's timer

        def stop(self, worker: WorkController) -> None:  # noqa: ARG002 -- Celery's signature
            """Leave nothing that says the worker runs."""
            self.beat.cancel()
            file.unlink(missing_ok=True)

    celery.steps["worker"].add(Heartbeat)


def is_alive(file: Path) -> bool:
    """Tell whether a worker has beaten lately; a beat in the future, of a clock that was ahead, is none."""
    try:
        return abs(time.time() - file.stat().st_mtime) < ALIVE_WITHIN
    except FileNotFoundError:
        return False

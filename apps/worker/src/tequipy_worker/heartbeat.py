"""The worker's heartbeat: a file that the worker's own event loop touches periodically."""

import time
from pathlib import Path
from typing import Final

from celery import Celery, bootsteps
from celery.worker import WorkController

from tequipy_worker.state import claim_folder

INTERVAL: Final = 5.0
"""Seconds between two heartbeats."""
ALIVE_WITHIN: Final = 30.0
"""Seconds after which a worker without a heartbeat counts as hanging."""


def wire_heartbeat(celery: Celery, file: Path) -> None:
    """Make the worker's main process touch `file`, which `tequipy-worker health` checks."""

    class Heartbeat(bootsteps.StartStopStep):
        """Touches the file from the consumer's own timer, so that a consumer that hangs stops the heartbeat."""

        requires = ("celery.worker.components:Timer",)

        def start(self, worker: WorkController) -> None:
            """Touch the file now and at each interval."""
            claim_folder(file.parent)
            file.touch()
            self.beat = worker.timer.call_repeatedly(INTERVAL, file.touch)  # type: ignore[union-attr]  # -- celery-types does not know kombu's timer

        def stop(self, worker: WorkController) -> None:  # noqa: ARG002 -- Celery's signature
            """Remove the file, because the worker no longer runs."""
            self.beat.cancel()
            file.unlink(missing_ok=True)

    celery.steps["worker"].add(Heartbeat)


def is_alive(file: Path) -> bool:
    """Return whether the file was touched recently; a time in the future, after a clock correction, does not count."""
    try:
        return abs(time.time() - file.stat().st_mtime) < ALIVE_WITHIN
    except FileNotFoundError:
        return False

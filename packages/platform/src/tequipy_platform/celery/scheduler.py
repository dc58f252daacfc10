"""The scheduler of Celery Beat, for machines whose clock may have been ahead."""

import logging
from typing import Any

from celery.beat import PersistentScheduler

logger = logging.getLogger("tequipy.beat")


class SteadyScheduler(PersistentScheduler):
    """Celery's scheduler, for which a last run in the future is none: the task is next due one period from now.

    Celery itself adds the period to what is stored. After a clock that was ahead by years, and was corrected, it would
    send nothing for as many years.
    """

    def tick(self, *arguments: Any, **options: Any) -> float:  # noqa: ANN401 -- Celery's own
        """Send what is due and return the seconds until the next look; Beat calls it in a loop."""
        self._forget_future_runs()
        seconds: float = super().tick(*arguments, **options)
        return seconds

    def _forget_future_runs(self) -> None:
        now = self.app.now()
        ahead = [entry for entry in self.schedule.values() if entry.last_run_at is not None and entry.last_run_at > now]
        for entry in ahead:
            entry.last_run_at = now
        if ahead:
            self._heap = None  # it is ordered by the times that were wrong; the next tick makes it anew
            logger.warning("schedule_reset", extra={"tasks": sorted(str(entry.name) for entry in ahead)})

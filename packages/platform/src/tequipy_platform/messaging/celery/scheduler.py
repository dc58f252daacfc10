"""A Celery Beat scheduler that survives corrections of the system clock."""

import logging
from typing import Any

from celery.beat import PersistentScheduler

logger = logging.getLogger(__name__)


class SteadyScheduler(PersistentScheduler):
    """Celery's scheduler, except that a last run in the future is replaced by the current time.

    Celery adds the period to the stored time of the last run. After a clock that was years ahead has been corrected,
    it would send nothing for years.
    """

    def tick(self, *arguments: Any, **options: Any) -> float:  # noqa: ANN401 -- Celery's own
        """Send due tasks and return the seconds until the next check; Beat calls it in a loop."""
        self._reset_future_runs()
        seconds: float = super().tick(*arguments, **options)
        return seconds

    def _reset_future_runs(self) -> None:
        now = self.app.now()
        ahead = [entry for entry in self.schedule.values() if entry.last_run_at is not None and entry.last_run_at > now]
        for entry in ahead:
            entry.last_run_at = now
        if ahead:
            self._heap = None  # it is ordered by the wrong times; the next tick rebuilds it
            logger.warning("schedule_reset", extra={"tasks": sorted(str(entry.name) for entry in ahead)})

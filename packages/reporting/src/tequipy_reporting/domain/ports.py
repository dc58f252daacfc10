"""Ports other than the repositories: the writers of files, and the metrics."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tequipy_reporting.domain.reports import Report, ReportFormat, ReportKind


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next bytes of a file, and the part of the file that is complete with them, from 0 to 1."""

    data: bytes
    progress: float


class ReportWriter(ABC):
    """Writes the files of one kind of report in one format."""

    @abstractmethod
    def write(self, report: Report) -> AsyncGenerator[Chunk]:
        """Yield the file in pieces of about 64 KiB, which together need not fit in memory.

        A writer yields often, because a cancelled report ends between two pieces, and works in a thread where a piece
        takes longer than some milliseconds.
        """


Writers = Mapping[tuple[ReportKind, ReportFormat], ReportWriter]
"""The writer for each kind and format."""


class ReportMetrics(ABC):
    """Measures reports that end, and the aggregation of the activity."""

    @abstractmethod
    def finished(self, report: Report, *, duration: timedelta | None = None) -> None:
        """Count a report that has ended, by its status; `duration` is the time of its last attempt."""

    @abstractmethod
    def day_counted(self) -> None:
        """Count a day whose activity was counted."""

    @abstractmethod
    def aggregated(self, *, at: datetime) -> None:
        """Note that the activity is as the audit was at that time."""

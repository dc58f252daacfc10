"""Prometheus metrics of reporting."""

from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tequipy_reporting.domain.ports import ReportMetrics
from tequipy_reporting.domain.reports import Report


class PrometheusReportMetrics(ReportMetrics):
    """Counts and measures reports; without a registry nothing is exported."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._finished = Counter(
            "reports_finished",
            "Reports that have ended: done, failed (with its error code) or cancelled.",
            ["kind", "format", "status", "error_code"],
            registry=registry,
        )
        self._duration = Histogram(
            "report_duration_seconds",
            "How long the last attempt at a report took that is done or has failed.",
            ["kind", "format"],
            registry=registry,
            buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 240),
        )
        self._size = Histogram(
            "report_size_bytes",
            "The size of the files of reports that are done.",
            ["format"],
            registry=registry,
            buckets=(1e4, 1e5, 1e6, 1e7, 1e8, 1e9),
        )
        self._days = Counter("activity_days_counted", "Days whose activity was counted.", registry=registry)
        self._aggregated = Gauge(
            "activity_aggregated_timestamp",
            "Unix time of the audit that the daily activity was last compared with; 0 before the first time.",
            registry=registry,
            multiprocess_mode="max",
        )

    def finished(self, report: Report, *, duration: timedelta | None = None) -> None:
        """Count a report, and observe its duration and size."""
        kind, report_format = report.kind.value, report.format.value
        self._finished.labels(kind, report_format, report.status.value, report.error_code or "").inc()
        if duration is not None:
            self._duration.labels(kind, report_format).observe(duration.total_seconds())
        if report.size_bytes is not None:
            self._size.labels(report_format).observe(report.size_bytes)

    def day_counted(self) -> None:
        """Count a day."""
        self._days.inc()

    def aggregated(self, *, at: datetime) -> None:
        """Set the time."""
        self._aggregated.set(at.timestamp())

"""Fakes of all ports, which keep data in memory, and `build_fake_reporting`, which needs no database."""

from tequipy_auth import Auth
from tequipy_auth.testing import PUBLIC_URL, build_fake_auth
from tequipy_platform import Clock, ObjectStorage, SystemClock
from tequipy_platform.testing import MemoryStorage, PlainMailTemplates
from tequipy_reporting.domain.composition import compose
from tequipy_reporting.domain.permissions import PERMISSIONS
from tequipy_reporting.domain.policy import ReportPolicy
from tequipy_reporting.domain.ports import ReportMetrics
from tequipy_reporting.domain.reporting import Reporting
from tequipy_reporting.testing.activity import MemoryActivity
from tequipy_reporting.testing.ports import FakeReportWriter, RecordingReportMetrics
from tequipy_reporting.testing.repositories import MemoryReportingUnitOfWork

__all__ = [
    "FakeReportWriter",
    "MemoryActivity",
    "MemoryReportingUnitOfWork",
    "RecordingReportMetrics",
    "build_fake_reporting",
]


def build_fake_reporting(
    work: MemoryReportingUnitOfWork | None = None,
    *,
    auth: Auth | None = None,
    clock: Clock | None = None,
    storage: ObjectStorage | None = None,
    policy: ReportPolicy | None = None,
    metrics: ReportMetrics | None = None,
) -> Reporting:
    """Build reporting in memory; pass `work` to inspect its data, and `clock` to control the time.

    It reads from `auth`, by default a fake one without accounts.
    """
    clock = clock or SystemClock()
    unit_of_work = work or MemoryReportingUnitOfWork(clock)
    return compose(
        lambda: unit_of_work,
        auth=auth or build_fake_auth(clock=clock, permissions=PERMISSIONS),
        storage=storage or MemoryStorage(clock),
        policy=policy or ReportPolicy(),
        clock=clock,
        new_id=unit_of_work.new_id,
        metrics=metrics or RecordingReportMetrics(),
        templates=PlainMailTemplates("tequipy_reporting"),
        public_url=PUBLIC_URL,
    )

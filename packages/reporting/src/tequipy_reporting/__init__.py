"""Reports about the activity of accounts: the public types, services and ports. Standard library only.

The other public modules are `wiring`, `api` (needs its extra), `tasks`, `migrations` and `testing`.
"""

from tequipy_reporting.domain.activity import CountedDay, DailyActivity
from tequipy_reporting.domain.exceptions import ReportNotReady, TooManyReports
from tequipy_reporting.domain.permissions import PERMISSIONS
from tequipy_reporting.domain.policy import ReportPolicy
from tequipy_reporting.domain.ports import Chunk, ReportMetrics, ReportWriter, Writers
from tequipy_reporting.domain.reporting import Reporting
from tequipy_reporting.domain.reports import (
    Period,
    Report,
    ReportFailure,
    ReportFormat,
    ReportKind,
    ReportStatus,
)
from tequipy_reporting.domain.repositories import Activity, ReportingUnitOfWork, Reports
from tequipy_reporting.domain.services.activity import ActivityService
from tequipy_reporting.domain.services.generation import GenerationService
from tequipy_reporting.domain.services.housekeeping import Housekeeping
from tequipy_reporting.domain.services.personal_data import PersonalReports
from tequipy_reporting.domain.services.reports import ReportService
from tequipy_reporting.domain.services.weekly_mail import WeeklyMailService

__all__ = [
    "PERMISSIONS",
    "Activity",
    "ActivityService",
    "Chunk",
    "CountedDay",
    "DailyActivity",
    "GenerationService",
    "Housekeeping",
    "Period",
    "PersonalReports",
    "Report",
    "ReportFailure",
    "ReportFormat",
    "ReportKind",
    "ReportMetrics",
    "ReportNotReady",
    "ReportPolicy",
    "ReportService",
    "ReportStatus",
    "ReportWriter",
    "Reporting",
    "ReportingUnitOfWork",
    "Reports",
    "TooManyReports",
    "WeeklyMailService",
    "Writers",
]

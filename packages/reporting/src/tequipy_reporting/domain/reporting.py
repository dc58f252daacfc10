"""The `Reporting` object: all services of the package."""

from collections.abc import Callable
from dataclasses import dataclass

from tequipy_platform import Mailer, ObjectStorage
from tequipy_reporting.domain.policy import ReportPolicy
from tequipy_reporting.domain.ports import Writers
from tequipy_reporting.domain.services.activity import ActivityService
from tequipy_reporting.domain.services.generation import GenerationService
from tequipy_reporting.domain.services.housekeeping import Housekeeping
from tequipy_reporting.domain.services.personal_data import PersonalReports
from tequipy_reporting.domain.services.reports import ReportService
from tequipy_reporting.domain.services.weekly_mail import WeeklyMailService


@dataclass(frozen=True, slots=True)
class Reporting:
    """The services of reporting; they use the database and the object storage, which the app keeps open."""

    reports: ReportService
    generation: Callable[[Writers], GenerationService]
    """Builds the service that generates reports with these writers; only a worker calls it."""
    activity: ActivityService
    weekly_mail: Callable[[Mailer], WeeklyMailService]
    """Builds the service of the weekly mail for a mailer; only a worker calls it."""
    housekeeping: Housekeeping
    personal_data: PersonalReports
    storage: ObjectStorage
    policy: ReportPolicy

"""The composition of the services, which production and tests share."""

from collections.abc import Callable

from tequipy_auth import Auth
from tequipy_platform import Clock, IdSource, Mailer, MailTemplates, ObjectStorage
from tequipy_reporting.domain.policy import ReportPolicy
from tequipy_reporting.domain.ports import ReportMetrics, Writers
from tequipy_reporting.domain.reporting import Reporting
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.domain.services.activity import ActivityService
from tequipy_reporting.domain.services.generation import GenerationService
from tequipy_reporting.domain.services.housekeeping import Housekeeping
from tequipy_reporting.domain.services.personal_data import PersonalReports
from tequipy_reporting.domain.services.reports import ReportService
from tequipy_reporting.domain.services.weekly_mail import WeeklyMailService


def compose(
    unit_of_work: Callable[[], ReportingUnitOfWork],
    *,
    auth: Auth,
    storage: ObjectStorage,
    policy: ReportPolicy,
    clock: Clock,
    new_id: IdSource,
    metrics: ReportMetrics,
    templates: MailTemplates,
    public_url: str,
) -> Reporting:
    """Return the services over these ports."""

    def generation(writers: Writers) -> GenerationService:
        return GenerationService(
            unit_of_work,
            storage=storage,
            writers=writers,
            policy=policy,
            clock=clock,
            new_id=new_id,
            metrics=metrics,
        )

    activity = ActivityService(
        unit_of_work,
        audit_log=auth.audit_log,
        audit_retention=auth.policy.audit_retention,
        clock=clock,
        metrics=metrics,
    )

    def weekly_mail(mailer: Mailer) -> WeeklyMailService:
        return WeeklyMailService(
            unit_of_work,
            administration=auth.administration,
            activity=activity,
            mailer=mailer,
            templates=templates,
            public_url=public_url,
            clock=clock,
        )

    return Reporting(
        reports=ReportService(unit_of_work, policy=policy, clock=clock, new_id=new_id, metrics=metrics),
        generation=generation,
        activity=activity,
        weekly_mail=weekly_mail,
        housekeeping=Housekeeping(unit_of_work, storage=storage, policy=policy, clock=clock, metrics=metrics),
        personal_data=PersonalReports(unit_of_work, clock),
        storage=storage,
        policy=policy,
    )

"""The composition of the services, which production and tests share."""

from collections.abc import Callable

from tequipy_platform import Clock, IdSource, ObjectStorage
from tequipy_reporting.domain.policy import ReportPolicy
from tequipy_reporting.domain.ports import ReportMetrics, Writers
from tequipy_reporting.domain.reporting import Reporting
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.domain.services.generation import GenerationService
from tequipy_reporting.domain.services.housekeeping import Housekeeping
from tequipy_reporting.domain.services.personal_data import PersonalReports
from tequipy_reporting.domain.services.reports import ReportService


def compose(
    unit_of_work: Callable[[], ReportingUnitOfWork],
    *,
    storage: ObjectStorage,
    policy: ReportPolicy,
    clock: Clock,
    new_id: IdSource,
    metrics: ReportMetrics,
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

    return Reporting(
        reports=ReportService(unit_of_work, policy=policy, clock=clock, new_id=new_id, metrics=metrics),
        generation=generation,
        housekeeping=Housekeeping(unit_of_work, storage=storage, policy=policy, clock=clock, metrics=metrics),
        personal_data=PersonalReports(unit_of_work, clock),
        storage=storage,
        policy=policy,
    )

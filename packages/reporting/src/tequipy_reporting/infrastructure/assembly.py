"""Builds reporting's services on PostgreSQL and an object storage."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

from prometheus_client import CollectorRegistry

from tequipy_auth import Auth, PersonalData
from tequipy_observability import needs_extra
from tequipy_platform import MailTemplates, ObjectStorage, SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.mail import JinjaMailTemplates
from tequipy_reporting.domain.composition import compose
from tequipy_reporting.domain.ports import Writers
from tequipy_reporting.domain.reporting import Reporting
from tequipy_reporting.domain.reports import ReportFormat, ReportKind
from tequipy_reporting.domain.services.personal_data import PersonalReports
from tequipy_reporting.infrastructure.csv_report import CsvReport
from tequipy_reporting.infrastructure.metrics import PrometheusReportMetrics
from tequipy_reporting.infrastructure.pdf_report import PdfReport
from tequipy_reporting.infrastructure.repositories import SqlReportingUnitOfWork
from tequipy_reporting.infrastructure.settings import ReportingSettings


def build_reporting(
    settings: ReportingSettings,
    *,
    public_url: str,
    database: Database,
    auth: Auth,
    storage: ObjectStorage,
    mail_templates: MailTemplates | None = None,
    time_limit: timedelta | None = None,
    redelivery: timedelta | None = None,
    registry: CollectorRegistry | None = None,
) -> Reporting:
    """Build reporting on PostgreSQL and an object storage, both of which the app keeps open.

    `mail_templates` are those of `tequipy_reporting` with a deployment's replacements (`build_mail_templates`).
    `time_limit` is that of a worker's tasks: a report that takes longer than nine tenths of it fails with `timed_out`.
    `redelivery` is the time after which the broker delivers the message of a killed worker again: a report without
    progress is `interrupted` after twice that time at the earliest.

    Metrics in `registry`: `reports_finished_total{kind,format,status,error_code}` counts reports that have ended,
    `report_duration_seconds{kind,format}` measures their last attempts, and `report_size_bytes{format}` their files.
    `activity_days_counted_total` counts days whose activity was counted, and `activity_aggregated_timestamp` is the
    time of the audit that the activity was last compared with.
    """
    policy = settings.policy
    if time_limit is not None:
        policy = replace(policy, max_duration=min(policy.max_duration, time_limit * 0.9))
    if redelivery is not None:
        policy = replace(policy, stuck_after=max(policy.stuck_after, redelivery * 2))
    return compose(
        partial(SqlReportingUnitOfWork, database, SystemClock(), uuid7),
        auth=auth,
        storage=storage,
        policy=policy,
        clock=SystemClock(),
        new_id=uuid7,
        metrics=PrometheusReportMetrics(registry),
        templates=mail_templates or JinjaMailTemplates("tequipy_reporting"),
        public_url=public_url.rstrip("/"),
    )


def build_personal_data(database: Database) -> PersonalData:
    """Return reporting's part of the export of an account, for `build_auth`."""
    return PersonalReports(partial(SqlReportingUnitOfWork, database, SystemClock(), uuid7), SystemClock())


def build_writers(auth: Auth, reporting: Reporting) -> Writers:
    """Return the writer of each kind and format.

    Raises `ImportError` without the extra `worker`, whose libraries are loaded when the first document is drawn.
    """
    with needs_extra("tequipy-reporting[worker]", "fontTools", "fpdf", "tequipy_fonts", "uharfbuzz"):
        return {
            (ReportKind.USER_ACTIVITY, ReportFormat.CSV): CsvReport(auth.audit_log),
            (ReportKind.USER_ACTIVITY, ReportFormat.PDF): PdfReport(reporting.activity, auth.administration),
        }

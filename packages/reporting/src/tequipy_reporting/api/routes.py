"""The routes of reports; the business rules are in the services."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response, status

from tequipy_auth import Principal
from tequipy_auth.api import CALLER_PROBLEMS, RequirePermission
from tequipy_platform import Invalid, NotFound, ObjectNotFound
from tequipy_platform.web import (
    BODY_PROBLEMS,
    IDEMPOTENCY_PROBLEMS,
    OBJECT_REQUEST,
    TAGGED_RESPONSE,
    IdempotencyKey,
    PageParameters,
    object_response,
    object_responses,
    problem_responses,
    tagged_response,
)
from tequipy_reporting.api.schemas import ActivityList, Day, ReportItem, ReportPage, ReportRequest
from tequipy_reporting.domain.exceptions import ReportNotReady, TooManyReports
from tequipy_reporting.domain.permissions import REPORTS_READ, REPORTS_WRITE
from tequipy_reporting.domain.reporting import Reporting
from tequipy_reporting.domain.reports import Period, ReportFormat

router = APIRouter(tags=["reports"])

READS_REPORTS: Final = Depends(RequirePermission(REPORTS_READ.name))
Requester = Annotated[Principal, Depends(RequirePermission(REPORTS_WRITE.name))]

LOCATION: Final[dict[int | str, dict[str, Any]]] = {
    status.HTTP_202_ACCEPTED: {
        "headers": {"Location": {"description": "The path of the report.", "schema": {"type": "string"}}}
    }
}


async def get_reporting(request: Request) -> Reporting:
    """Return the `Reporting` object that `wire_reporting` attached to the app."""
    reporting: Reporting = request.app.state.reporting
    return reporting


CurrentReporting = Annotated[Reporting, Depends(get_reporting)]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    responses=LOCATION | problem_responses(*BODY_PROBLEMS, *CALLER_PROBLEMS, *IDEMPOTENCY_PROBLEMS, TooManyReports),
)
async def request_report(
    *,
    request: Request,
    response: Response,
    reporting: CurrentReporting,
    requester: Requester,
    key: IdempotencyKey,
    body: ReportRequest,
) -> ReportItem:
    """Request a report, which is generated in the background; `Location` is its address.

    The reports of one account are generated one after the other.
    """
    report = await reporting.reports.request(requester, body.kind, body.format, body.period, request=key)
    response.headers["Location"] = request.url_for("get_report", id=str(report.id)).path
    return ReportItem.of(report)


@router.get("", dependencies=[READS_REPORTS], responses=problem_responses(*CALLER_PROBLEMS, Invalid))
async def list_reports(reporting: CurrentReporting, page: PageParameters) -> ReportPage:
    """Return the reports of all accounts, the newest first."""
    return ReportPage.of(await reporting.reports.page(page), ReportItem.of)


@router.get("/daily-activity", dependencies=[READS_REPORTS], responses=problem_responses(*CALLER_PROBLEMS, Invalid))
async def get_daily_activity(
    reporting: CurrentReporting,
    first_day: Annotated[Day, Query(alias="from", description="The first day, in UTC.")],
    last_day: Annotated[Day, Query(alias="to", description="The last day, in UTC; at most 366 days.")],
) -> ActivityList:
    """Return the activity of all accounts for each day of a period; that of today is at most some minutes old."""
    return ActivityList.of(await reporting.activity.days(Period(first_day, last_day)))


@router.get(
    "/{id:uuid}",
    dependencies=[READS_REPORTS],
    response_model=ReportItem,
    responses=problem_responses(*CALLER_PROBLEMS, NotFound),
    openapi_extra=TAGGED_RESPONSE,
)
async def get_report(
    request: Request, reporting: CurrentReporting, report_id: Annotated[UUID, Path(alias="id")]
) -> Response:
    """Return a report; its `ETag` is for `If-None-Match`."""
    report = await reporting.reports.get(report_id)
    return tagged_response(request, ReportItem.of(report), report.state_tag)


@router.get(
    "/{id:uuid}/content",
    dependencies=[READS_REPORTS],
    response_class=Response,
    responses=object_responses(*(each.media_type for each in ReportFormat))
    | problem_responses(*CALLER_PROBLEMS, NotFound, ObjectNotFound, ReportNotReady),
    openapi_extra=OBJECT_REQUEST,
)
async def download_report(
    request: Request, reporting: CurrentReporting, report_id: Annotated[UUID, Path(alias="id")]
) -> Response:
    """Download the file of a report that is done; `Range` continues a broken download."""
    report, stored = await reporting.reports.file(report_id)
    return await object_response(
        request, reporting.storage, stored, filename=report.filename, media_type=report.format.media_type
    )


@router.delete(
    "/{id:uuid}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[Depends(RequirePermission(REPORTS_WRITE.name))],
    responses=problem_responses(*CALLER_PROBLEMS, NotFound),
)
async def delete_report(reporting: CurrentReporting, report_id: Annotated[UUID, Path(alias="id")]) -> None:
    """Cancel a report that waits or runs; delete one that has ended. Its file is removed."""
    await reporting.reports.delete(report_id)

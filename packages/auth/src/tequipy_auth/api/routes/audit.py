"""The route for those who read the audit."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from tequipy_auth.api.administration_schemas import AuditEventItem, AuditEventPage
from tequipy_auth.api.dependencies import CALLER_PROBLEMS, CurrentAuth
from tequipy_auth.api.permissions import RequirePermission
from tequipy_auth.domain.audit import AuditFilter
from tequipy_platform import Invalid
from tequipy_platform.web import PageParameters, UtcDatetime, problem_responses

router = APIRouter(prefix="/audit-events")


def _wanted(
    user_id: Annotated[UUID | None, Query(description="The account that was affected.")] = None,
    action: Annotated[str | None, Query(max_length=64, pattern="^[a-z_]+$")] = None,
    since: Annotated[UtcDatetime | None, Query(description="The earliest time.")] = None,
    until: Annotated[UtcDatetime | None, Query(description="The end, exclusive.")] = None,
) -> AuditFilter:
    return AuditFilter(subject_id=user_id, action=action, since=since, until=until)


@router.get(
    "",
    dependencies=[Depends(RequirePermission("audit:read"))],
    responses=problem_responses(*CALLER_PROBLEMS, Invalid),
)
async def list_audit_events(
    auth: CurrentAuth, page: PageParameters, wanted: Annotated[AuditFilter, Depends(_wanted)]
) -> AuditEventPage:
    """Return the audit events, the newest first."""
    return AuditEventPage.of(await auth.audit_log.page(page, wanted), AuditEventItem.of)

"""The routes of the caller's own account."""

from fastapi import APIRouter

from tequipy_auth.api.administration_schemas import AuditEventItem
from tequipy_auth.api.dependencies import CurrentAuth, CurrentPrincipal
from tequipy_auth.api.schemas import Me, ProfileBody
from tequipy_auth.domain.audit import AuditFilter
from tequipy_auth.domain.exceptions import AmbiguousCredentials, InvalidAccessToken
from tequipy_platform import Invalid, Unauthenticated, Unavailable
from tequipy_platform.web import BODY_PROBLEMS, PageBody, PageParameters, problem_responses

router = APIRouter()


@router.get(
    "/me",
    responses=problem_responses(AmbiguousCredentials, Unauthenticated, InvalidAccessToken, Unavailable),
)
async def get_me(auth: CurrentAuth, principal: CurrentPrincipal) -> Me:
    """Return the caller's own account."""
    profile = await auth.accounts.profile(principal.user_id)
    return Me.of(profile, await auth.roles.permissions_of(profile.roles))


@router.get(
    "/me/events",
    responses=problem_responses(AmbiguousCredentials, Unauthenticated, InvalidAccessToken, Invalid, Unavailable),
)
async def list_my_events(
    auth: CurrentAuth, principal: CurrentPrincipal, page: PageParameters
) -> PageBody[AuditEventItem]:
    """Return the audit events of the caller's own account, the newest first."""
    events = await auth.audit_log.page(page, AuditFilter(subject_id=principal.user_id))
    return PageBody[AuditEventItem].of(events, AuditEventItem.of)


@router.patch(
    "/me",
    responses=problem_responses(*BODY_PROBLEMS, AmbiguousCredentials, Unauthenticated, InvalidAccessToken, Unavailable),
)
async def change_me(auth: CurrentAuth, principal: CurrentPrincipal, body: ProfileBody) -> Me:
    """Change the caller's own account."""
    profile = await auth.accounts.rename(principal.user_id, body.name)
    return Me.of(profile, await auth.roles.permissions_of(profile.roles))

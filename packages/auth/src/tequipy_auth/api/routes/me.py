"""The routes of the caller's own account."""

from typing import Any, Final

from fastapi import APIRouter, Response, status
from fastapi.responses import JSONResponse
from pydantic import JsonValue

from tequipy_auth.api.administration_schemas import AuditEventItem, AuditEventPage
from tequipy_auth.api.contract import DELETES_COOKIE
from tequipy_auth.api.cookies import delete_refresh_cookie
from tequipy_auth.api.dependencies import CALLER_PROBLEMS, CurrentAuth, CurrentClient, CurrentPrincipal
from tequipy_auth.api.schemas import Accepted, DeleteMeBody, Me, ProfileBody
from tequipy_auth.domain.audit import AuditFilter
from tequipy_auth.domain.exceptions import (
    InvalidCredentials,
    LastAdmin,
    LoginLocked,
)
from tequipy_platform import Invalid
from tequipy_platform.web import BODY_PROBLEMS, PageParameters, problem_responses

router = APIRouter()

EXPORT_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    status.HTTP_200_OK: {
        "headers": {
            "Content-Disposition": {"description": "The name of the file (RFC 6266).", "schema": {"type": "string"}}
        },
        "content": {
            "application/json": {
                "examples": {
                    "export": {
                        "value": {
                            "account": {"id": "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e", "email": "ada@example.com"},
                            "sessions": [{"id": "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8f", "ip": "192.0.2.1"}],
                            "devices": [{"last_used_at": "2026-01-31T10:30:00Z"}],
                            "registrations": [{"email": "ada@example.com", "name": "Ada Lovelace"}],
                            "invitations": [{"email": "ada@example.com", "roles": ["user"]}],
                            "email_changes": [{"old": "ada@example.net", "new": "ada@example.com"}],
                            "events": [{"at": "2026-01-31T10:30:00Z", "action": "login_ok"}],
                        }
                    }
                }
            }
        },
    }
}


@router.get(
    "/me",
    responses=problem_responses(*CALLER_PROBLEMS),
)
async def get_me(auth: CurrentAuth, principal: CurrentPrincipal) -> Me:
    """Return the caller's own account."""
    profile = await auth.accounts.profile(principal.user_id)
    return Me.of(profile, await auth.roles.permissions_of(profile.roles))


@router.get(
    "/me/events",
    responses=problem_responses(*CALLER_PROBLEMS, Invalid),
)
async def list_my_events(auth: CurrentAuth, principal: CurrentPrincipal, page: PageParameters) -> AuditEventPage:
    """Return the audit events of the caller's own account, the newest first.

    `ip` and `user_agent` are null in what an administrator did to the account.
    """
    events = await auth.audit_log.page(page, AuditFilter(subject_id=principal.user_id))
    return AuditEventPage.of(events, lambda each: AuditEventItem.of(each.as_seen_by(principal.user_id)))


@router.get(
    "/me/export",
    response_model=dict[str, JsonValue],
    responses=EXPORT_RESPONSE | problem_responses(*CALLER_PROBLEMS),
)
async def export_me(auth: CurrentAuth, principal: CurrentPrincipal) -> Response:
    """Return everything that is held about the caller's account, with one member for each kind of data."""
    exported = await auth.exports.export(principal)
    headers = {"Content-Disposition": 'attachment; filename="export.json"'}
    return JSONResponse(exported, headers=headers)


@router.delete(
    "/me",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        status.HTTP_202_ACCEPTED: {"headers": DELETES_COOKIE},
        **problem_responses(*BODY_PROBLEMS, *CALLER_PROBLEMS, InvalidCredentials, LastAdmin, LoginLocked),
    },
)
async def delete_me(
    *, response: Response, auth: CurrentAuth, principal: CurrentPrincipal, client: CurrentClient, body: DeleteMeBody
) -> Accepted:
    """Delete the caller's account: it can no longer be used, and is erased after seven days.

    Until then an administrator can enable it again.
    """
    await auth.deletion.request(principal, password=body.password.get_secret_value(), client=client)
    delete_refresh_cookie(response, auth)
    return Accepted()


@router.patch(
    "/me",
    responses=problem_responses(*BODY_PROBLEMS, *CALLER_PROBLEMS),
)
async def change_me(auth: CurrentAuth, principal: CurrentPrincipal, body: ProfileBody) -> Me:
    """Change the caller's own account."""
    profile = await auth.accounts.rename(principal.user_id, body.name)
    return Me.of(profile, await auth.roles.permissions_of(profile.roles))

"""Response bodies of the routes for administrators."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue

from tequipy_auth.api.schemas import Address
from tequipy_auth.domain.audit import AuditRecord
from tequipy_auth.domain.entities import Invitation, User, UserStatus
from tequipy_auth.domain.roles import PROTECTED, USER, Permission, Role
from tequipy_platform.web import PageBody, StrictModel

RoleName = Annotated[str, Field(max_length=63, pattern="^[a-z][a-z0-9_]*$")]

_ID = "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"
_TIME = "2026-01-31T10:30:00Z"


class UserItem(BaseModel):
    """An account."""

    id: UUID = Field(examples=[_ID])
    email: str = Field(examples=["ada@example.com"])
    name: str | None = Field(examples=["Ada Lovelace"])
    email_verified: bool = Field(examples=[True])
    status: UserStatus = Field(examples=["active"])
    roles: list[str] = Field(examples=[["user"]])
    created_at: datetime = Field(examples=[_TIME])
    last_login_at: datetime | None = Field(examples=[_TIME])

    @classmethod
    def of(cls, user: User) -> Self:
        """Return the body for an account."""
        return cls(
            id=user.id,
            email=user.email.written,
            name=user.name,
            email_verified=user.email_verified,
            status=user.status,
            roles=list(user.roles),
            created_at=user.created_at,
            last_login_at=user.last_login_at,
        )


class UserPage(PageBody[UserItem]):
    """A page of accounts; send `next_cursor` as `cursor` for the next one."""


class RolesBody(StrictModel):
    """The roles of an account."""

    roles: list[RoleName] = Field(max_length=100, examples=[["user"]])


class InvitationBody(StrictModel):
    """The person to invite, and the roles of the account."""

    email: Address
    roles: list[RoleName] = Field(default=[USER], max_length=100, examples=[["user"]])


class InvitationItem(BaseModel):
    """An open invitation."""

    id: UUID = Field(examples=[_ID])
    email: str = Field(examples=["ada@example.com"])
    roles: list[str] = Field(examples=[["user"]])
    invited_by: UUID = Field(examples=[_ID], description="The account of the administrator.")
    created_at: datetime = Field(examples=[_TIME])
    expires_at: datetime = Field(examples=["2026-02-07T10:30:00Z"])

    @classmethod
    def of(cls, invitation: Invitation) -> Self:
        """Return the body for an invitation."""
        return cls(
            id=invitation.id,
            email=invitation.email.written,
            roles=list(invitation.roles),
            invited_by=invitation.invited_by,
            created_at=invitation.created_at,
            expires_at=invitation.expires_at,
        )


class InvitationPage(PageBody[InvitationItem]):
    """A page of invitations; send `next_cursor` as `cursor` for the next one."""


class PermissionsBody(StrictModel):
    """The permissions of a role."""

    permissions: list[Annotated[str, Field(max_length=127)]] = Field(max_length=200, examples=[["users:read"]])


class RoleItem(BaseModel):
    """A role and its permissions."""

    name: str = Field(examples=["support"])
    permissions: list[str] = Field(examples=[["audit:read", "users:read"]])
    builtin: bool = Field(examples=[False], description="Whether nobody can change it.")

    @classmethod
    def of(cls, role: Role) -> Self:
        """Return the body for a role."""
        return cls(name=role.name, permissions=list(role.permissions), builtin=role.name in PROTECTED)


class PermissionItem(BaseModel):
    """A permission that a part of this service declares."""

    name: str = Field(examples=["users:read"])
    description: str = Field(examples=["See all accounts, invitations and roles."])

    @classmethod
    def of(cls, permission: Permission) -> Self:
        """Return the body for a permission."""
        return cls(name=permission.name, description=permission.description)


class RoleList(BaseModel):
    """All roles and all permissions."""

    items: list[RoleItem]
    permissions: list[PermissionItem]


class AuditEventItem(BaseModel):
    """An operation that was performed or attempted."""

    id: UUID = Field(examples=[_ID])
    at: datetime = Field(examples=[_TIME])
    action: str = Field(examples=["login_ok"])
    outcome: str = Field(examples=["success"])
    reason: str | None = Field(examples=[None])
    actor_id: UUID | None = Field(examples=[_ID])
    subject_id: UUID | None = Field(examples=[_ID])
    session_id: UUID | None = Field(examples=[_ID])
    ip: str | None = Field(examples=["192.0.2.1"])
    user_agent: str | None = Field(examples=["Mozilla/5.0"])
    correlation_id: str | None = Field(examples=["5f0c6d2e9b7a4c1d8e3f2a1b0c9d8e7f"])
    metadata: dict[str, JsonValue] = Field(examples=[{}])

    @classmethod
    def of(cls, record: AuditRecord) -> Self:
        """Return the body for a stored event."""
        event = record.event
        return cls(
            id=record.id,
            at=record.at,
            action=event.action,
            outcome=event.outcome,
            reason=event.reason,
            actor_id=event.actor_id,
            subject_id=event.subject_id,
            session_id=event.session_id,
            ip=event.client.ip,
            user_agent=event.client.user_agent,
            correlation_id=record.correlation_id,
            metadata=dict(event.metadata),
        )


class AuditEventPage(PageBody[AuditEventItem]):
    """A page of audit events; send `next_cursor` as `cursor` for the next one."""

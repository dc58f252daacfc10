"""Export of everything that is held about an account (GDPR, article 15)."""

from collections.abc import Callable, Sequence
from uuid import UUID

from tequipy_auth.domain.audit import AuditFilter, AuditRecord
from tequipy_auth.domain.entities import Device, EmailChange, Invitation, Registration, Session, User
from tequipy_auth.domain.exceptions import InvalidAccessToken
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.ports import PersonalData
from tequipy_auth.domain.repositories import AuditLog, AuthUnitOfWork
from tequipy_auth.domain.value_objects import Principal
from tequipy_platform import JSON, PageRequest

_PAGE_SIZE = 1000


class ExportService:
    """Collects what auth and the other packages hold about the caller's account."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        audit_log: AuditLog,
        personal_data: Sequence[PersonalData],
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._audit_log = audit_log
        self._personal_data = personal_data
        self._operations = operations

    @counted("export")
    async def export(self, principal: Principal) -> dict[str, JSON]:
        """Return one section for each kind of data; raises `InvalidAccessToken` when the account does not exist.

        Hashes of passwords and tokens are left out: they are no information about the person, and could be attacked.
        """
        async with self._unit_of_work() as work:
            user = await work.users.get(principal.user_id)
            if user is None:
                raise InvalidAccessToken
            sessions = await work.sessions.all_of(user.id)
            devices = await work.devices.all_of(user.id)
            registrations = await work.registrations.all_of(user.email.canonical)
            invitation = await work.invitations.of(user.email.canonical)
            email_changes = await work.email_changes.of(user.id)
        exported: dict[str, JSON] = {
            "account": _account(user),
            "sessions": [_session(session) for session in sessions],
            "devices": [_device(device) for device in devices],
            "registrations": [_registration(registration) for registration in registrations],
            "invitations": [_invitation(invitation)] if invitation else [],
            "email_changes": [_email_change(change) for change in email_changes],
            "events": [_event(record, user.id) for record in await self._events(user.id)],
        }
        for source in self._personal_data:
            exported[source.section] = await source.export(user.id)
        return exported

    async def _events(self, user_id: UUID) -> list[AuditRecord]:
        events: list[AuditRecord] = []
        request = PageRequest(_PAGE_SIZE)
        while True:
            page = await self._audit_log.page(request, AuditFilter(account_id=user_id))
            events += page.items
            if page.next_after is None:
                return events
            request = PageRequest(_PAGE_SIZE, page.next_after)


def _account(user: User) -> JSON:
    roles: list[JSON] = list(user.roles)
    return {
        "id": str(user.id),
        "email": user.email.written,
        "email_verified": user.email_verified,
        "name": user.name,
        "roles": roles,
        "status": user.status.value,
        "created_at": user.created_at.isoformat(),
        "last_login_at": user.last_login_at.isoformat() if user.last_login_at else None,
    }


def _session(session: Session) -> JSON:
    last = session.last_client or session.client
    return {
        "id": str(session.id),
        "created_at": session.created_at.isoformat(),
        "last_used_at": session.last_used_at.isoformat(),
        "expires_at": session.expires_at.isoformat(),
        "authenticated_at": session.auth_time.isoformat(),
        "ended_at": session.revoked_at.isoformat() if session.revoked_at else None,
        "ip": session.client.ip,
        "user_agent": session.client.user_agent,
        "last_ip": last.ip,
        "last_user_agent": last.user_agent,
    }


def _device(device: Device) -> JSON:
    return {"last_used_at": device.last_used_at.isoformat(), "expires_at": device.expires_at.isoformat()}


def _registration(registration: Registration) -> JSON:
    return {
        "email": registration.email.written,
        "name": registration.name,
        "created_at": registration.created_at.isoformat(),
        "expires_at": registration.expires_at.isoformat(),
    }


def _invitation(invitation: Invitation) -> JSON:
    roles: list[JSON] = list(invitation.roles)
    return {
        "email": invitation.email.written,
        "roles": roles,
        "created_at": invitation.created_at.isoformat(),
        "expires_at": invitation.expires_at.isoformat(),
    }


def _email_change(change: EmailChange) -> JSON:
    return {
        "requested_at": change.requested_at.isoformat(),
        "old": change.old.written,
        "new": change.new.written,
        "state": change.state.value,
        "undo_until": change.undo_until.isoformat(),
    }


def _event(record: AuditRecord, user_id: UUID) -> JSON:
    """Return an event about the account, or one that it has caused without what is about the other account."""
    event = record.as_seen_by(user_id).event
    about = event.subject_id == user_id
    return {
        "id": str(record.id),
        "at": record.at.isoformat(),
        "action": str(event.action),
        "outcome": str(event.outcome),
        "reason": event.reason,
        "session_id": str(event.session_id) if about and event.session_id else None,
        "ip": event.client.ip,
        "user_agent": event.client.user_agent,
        "correlation_id": record.correlation_id,
        "metadata": dict(event.metadata) if about else {},
    }

"""What administrators see of accounts, and do to them."""

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from hashlib import sha256
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.entities import User, UserStatus
from tequipy_auth.domain.exceptions import LastAdmin, SelfDisable, UnknownRole
from tequipy_auth.domain.lockout import Lockout
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.repositories import AuthUnitOfWork, UserFilter
from tequipy_auth.domain.roles import ADMIN, USERS_WRITE, RoleMap
from tequipy_auth.domain.services.accounts import AccountService
from tequipy_auth.domain.services.roles import RoleService
from tequipy_auth.domain.services.session_issuer import SessionIssuer, SessionRevocation
from tequipy_auth.domain.task_names import DROP_PROFILE, SEND_MAIL
from tequipy_auth.domain.value_objects import Client, Principal, Purpose
from tequipy_platform import JSON, Clock, NotFound, Page, PageRequest, PreconditionFailed, retry_conflicts


class AdministrationService:
    """Reads and changes accounts on behalf of administrators.

    The caller has checked the permission to read. Changes check `users:write` once more in their transaction, so that
    of two administrators who demote each other at once, the second is refused.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        accounts: AccountService,
        roles: RoleService,
        issuer: SessionIssuer,
        lockout: Lockout,
        clock: Clock,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._accounts = accounts
        self._roles = roles
        self._issuer = issuer
        self._lockout = lockout
        self._clock = clock
        self._operations = operations

    async def users(self, request: PageRequest, wanted: UserFilter) -> Page[User]:
        """Return a page of accounts, the newest first."""
        async with self._unit_of_work() as work:
            return await work.users.page(request, wanted)

    async def user(self, user_id: UUID) -> User:
        """Return an account; raises `NotFound`."""
        async with self._unit_of_work() as work:
            user = await work.users.get(user_id)
        if user is None:
            raise NotFound
        return user

    @counted("set_roles")
    @retry_conflicts
    async def set_roles(
        self,
        principal: Principal,
        user_id: UUID,
        roles: Collection[str],
        *,
        client: Client,
        if_match: AbstractSet[str] | None = None,
    ) -> None:
        """Replace the roles of an account, whose access tokens become outdated at once.

        `if_match` are the entity tags of which one must be that of the account (`state_tag`). Raises `UnknownRole`,
        `NotFound`, `PreconditionFailed`, `LastAdmin`, and `Forbidden` if a new role has a permission that the caller
        lacks.
        """
        new = tuple(sorted(set(roles)))
        async with self._unit_of_work() as work:
            await work.users.lock_administrators()
            all_roles = await self._roles.stored(work)
            user = await self._lock(work, principal, user_id, all_roles)
            if not all_roles.has_all(new):
                raise UnknownRole
            if if_match is not None and not if_match & {"*", state_tag(user)}:
                raise PreconditionFailed
            given = set(all_roles.permissions_of(new)) - set(all_roles.permissions_of(user.roles))
            await self._roles.require_all(work, all_roles, principal, given)
            if ADMIN not in new:
                await refuse_last_administrator(work, user)
            await work.users.set_roles(user.id, new)
            revoked_ids = await self._issuer.supersede(work, user.id)
            work.outbox.add(DROP_PROFILE, user_id=str(user.id))
            previous: list[JSON] = list(user.roles)
            _record(work, AuditAction.ROLE_CHANGED, principal, user, client, roles=list(new), previous=previous)
        await self._issuer.publish(revoked_ids)
        await self._accounts.invalidate(user.id)

    @counted("disable_user")
    @retry_conflicts
    async def disable(self, principal: Principal, user_id: UUID, *, client: Client) -> None:
        """Disable an account and end its sessions; its mailed links become invalid.

        Only a link that undoes a change of address works again once the account is enabled again. Raises `NotFound`,
        `SelfDisable` and `LastAdmin`; nothing happens to an account that is disabled already.
        """
        if user_id == principal.user_id:
            raise SelfDisable
        async with self._unit_of_work() as work:
            user = await self._lock(work, principal, user_id)
            if user.status is not UserStatus.ACTIVE:
                return
            await refuse_last_administrator(work, user)
            await work.users.set_status(user.id, UserStatus.DISABLED)
            await work.one_time_tokens.discard(user.id, Purpose.RESET_PASSWORD)
            await work.email_changes.close_pending(user.id)
            revocation = SessionRevocation("disabled", self._clock.now(), actor_id=principal.user_id, client=client)
            revoked_ids = await self._issuer.revoke_all(work, user.id, revocation)
            revoked_ids += await self._issuer.supersede(work, user.id)
            _record(work, AuditAction.USER_DISABLED, principal, user, client)
        await self._issuer.publish(revoked_ids)

    @counted("enable_user")
    @retry_conflicts
    async def enable(self, principal: Principal, user_id: UUID, *, client: Client) -> None:
        """Make a disabled account active again, or one that is being deleted; raises `NotFound`."""
        async with self._unit_of_work() as work:
            user = await self._lock(work, principal, user_id)
            if user.status is UserStatus.ACTIVE:
                return
            await work.users.set_status(user.id, UserStatus.ACTIVE)
            _record(work, AuditAction.USER_ENABLED, principal, user, client, previous=user.status.value)

    @counted("unlock_user")
    @retry_conflicts
    async def unlock(self, principal: Principal, user_id: UUID, *, client: Client) -> None:
        """Delete the counters of failed logins of an account; raises `NotFound`."""
        async with self._unit_of_work() as work:
            user = await self._lock(work, principal, user_id)
            await self._lockout.unlock(work.attempts, user.email)
            _record(work, AuditAction.USER_UNLOCKED, principal, user, client)

    @counted("end_user_sessions")
    @retry_conflicts
    async def end_sessions(self, principal: Principal, user_id: UUID, *, client: Client) -> None:
        """End all sessions of an account; raises `NotFound`."""
        async with self._unit_of_work() as work:
            user = await self._lock(work, principal, user_id)
            now = self._clock.now()
            revocation = SessionRevocation("revoked_by_admin", now, actor_id=principal.user_id, client=client)
            revoked_ids = await self._issuer.revoke_all(work, user.id, revocation)
        await self._issuer.publish(revoked_ids)

    @counted("request_password_reset")
    @retry_conflicts
    async def request_password_reset(self, principal: Principal, user_id: UUID, *, client: Client) -> None:
        """Mail the owner of an account a link to reset the password; raises `NotFound`."""
        async with self._unit_of_work() as work:
            user = await self._lock(work, principal, user_id)
            work.outbox.add(SEND_MAIL, mail="reset_password", subject_id=str(user.id))
            _record(work, AuditAction.RESET_REQUESTED, principal, user, client)

    async def _lock(
        self, work: AuthUnitOfWork, principal: Principal, user_id: UUID, roles: RoleMap | None = None
    ) -> User:
        """Lock the administrators and return the locked account; raises `NotFound`, and `Forbidden` for the caller.

        `roles` are the stored ones if the caller has locked the administrators and read them already.
        """
        if roles is None:
            await work.users.lock_administrators()
            roles = await self._roles.stored(work)
        await self._roles.require_all(work, roles, principal, {USERS_WRITE.name})
        user = await work.users.lock(user_id)
        if user is None:
            raise NotFound
        return user


def _record(
    work: AuthUnitOfWork,
    action: AuditAction,
    principal: Principal,
    user: User,
    client: Client,
    **metadata: JSON,
) -> None:
    work.audit.record(
        AuditEvent(action, actor_id=principal.user_id, subject_id=user.id, client=client, metadata=metadata)
    )


async def refuse_last_administrator(work: AuthUnitOfWork, user: User) -> None:
    """Raise `LastAdmin` if no other active account is an administrator; the caller has locked the administrators."""
    active = ADMIN in user.roles and user.status is UserStatus.ACTIVE
    if active and not await work.users.has_other_administrator(user.id):
        raise LastAdmin


def state_tag(user: User) -> str:
    """Return an entity tag of what administrators see of an account (RFC 9110, section 8.8.3)."""
    state = (
        user.id,
        user.email.written,
        user.email_verified,
        user.name,
        user.status,
        user.roles,
        user.created_at,
        user.last_login_at,
    )
    return sha256(repr(state).encode()).hexdigest()[:32]

"""Invitations by administrators: the way to an account where registration is closed, and to one with roles."""

from collections.abc import Callable, Collection
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.display_text import display_name
from tequipy_auth.domain.entities import Invitation, User
from tequipy_auth.domain.exceptions import EmailTaken, InvalidOneTimeToken, UnknownRole
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.passwords import PasswordRules
from tequipy_auth.domain.policy import INVITATION_TTL
from tequipy_auth.domain.ports import AddressParser, PasswordHasher
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.roles import USERS_WRITE
from tequipy_auth.domain.services.one_time_tokens import read_one_time_token, record_refused_token
from tequipy_auth.domain.services.roles import RoleService
from tequipy_auth.domain.task_names import SEND_MAIL
from tequipy_auth.domain.value_objects import Client, OneTimeTokenValue, PasswordHash, Principal, Purpose
from tequipy_platform import JSON, Clock, IdempotentRequest, IdSource, NotFound, Page, PageRequest, retry_conflicts


class InvitationService:
    """Invites people, and turns an invitation into an account when its mailed link is used.

    Nobody gives a permission by an invitation that they lack, neither when they invite nor when the link is used.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        addresses: AddressParser,
        rules: PasswordRules,
        hasher: PasswordHasher,
        roles: RoleService,
        pseudonyms: Pseudonyms,
        clock: Clock,
        new_id: IdSource,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._addresses = addresses
        self._rules = rules
        self._hasher = hasher
        self._roles = roles
        self._pseudonyms = pseudonyms
        self._clock = clock
        self._new_id = new_id
        self._operations = operations

    @counted("invite")
    @retry_conflicts
    async def invite(
        self,
        principal: Principal,
        *,
        email: str,
        roles: Collection[str],
        client: Client,
        request: IdempotentRequest | None = None,
    ) -> None:
        """Invite a person to an account with these roles, in place of an earlier invitation of the address.

        It does the same work for every address; the worker mails a link, or a notice if the address has an account.
        With `request` a repeat does nothing. Raises `InvalidAddress`, `UnknownRole`, `IdempotencyKeyInUse`,
        `IdempotencyKeyReused`, and `Forbidden` if a role has a permission that the caller lacks.
        """
        address, now = self._addresses.parse(email), self._clock.now()
        invitation = Invitation(
            id=self._new_id(),
            email=address,
            roles=tuple(sorted(set(roles))),
            invited_by=principal.user_id,
            created_at=now,
            expires_at=now + INVITATION_TTL,
        )
        async with self._unit_of_work() as work:
            caller = str(principal.user_id)
            if request is not None and await work.idempotency.begin(caller, request) is not None:
                return
            await work.users.lock_administrators()
            all_roles = await self._roles.stored(work)
            if not all_roles.has_all(invitation.roles):
                raise UnknownRole
            given = all_roles.permissions_of(invitation.roles)
            await self._roles.require_all(work, all_roles, principal, {USERS_WRITE.name, *given})
            await work.invitations.put(invitation)
            work.outbox.add(SEND_MAIL, mail="invitation", subject_id=str(invitation.id))
            self._record(work, AuditAction.USER_INVITED, principal, invitation, client)
            if request is not None:
                await work.idempotency.keep(caller, request, {})

    async def page(self, request: PageRequest) -> Page[Invitation]:
        """Return a page of the open invitations, the newest first.

        Open are those that can still be accepted: not expired, and of an address without an account.
        """
        async with self._unit_of_work() as work:
            return await work.invitations.page(request, at=self._clock.now())

    @counted("delete_invitation")
    @retry_conflicts
    async def delete(self, principal: Principal, invitation_id: UUID, *, client: Client) -> None:
        """Delete an invitation, whose link becomes invalid; raises `NotFound`, and `Forbidden` for the caller."""
        async with self._unit_of_work() as work:
            await work.users.lock_administrators()
            await self._roles.require_all(work, await self._roles.stored(work), principal, {USERS_WRITE.name})
            invitation = await work.invitations.get(invitation_id)
            if invitation is None:
                raise NotFound
            await work.invitations.delete_for(invitation.email.canonical)
            self._record(work, AuditAction.INVITATION_DELETED, principal, invitation, client)

    @counted("accept_invitation")
    @retry_conflicts
    async def accept(self, token: str, *, password: str, name: str | None = None, client: Client) -> None:
        """Create a verified account with the token of a mailed invitation; pending registrations of the address end.

        Raises `InvalidName`, `WeakPassword` (the token can still be used), `Unavailable`, and `InvalidOneTimeToken` for
        any fault of the token, for an address that has an account, and if the inviter could no longer give the roles.
        """
        value = read_one_time_token(token)
        name = None if name is None else display_name(name)
        try:
            await self._accept(value, password, name, client)
        except InvalidOneTimeToken as error:
            async with self._unit_of_work() as work:
                await record_refused_token(work, value, AuditAction.REGISTERED, error.code, client)
            raise

    async def _accept(self, value: OneTimeTokenValue, password: str, name: str | None, client: Client) -> None:
        presented = (value.id, Purpose.ACCEPT_INVITATION, value.secret_hash)
        async with self._unit_of_work() as work:  # checked before the expensive hash
            subject_id = await work.one_time_tokens.peek(*presented, at=self._clock.now())
            address = (await self._acceptable(work, subject_id)).email
        accepted = await self._rules.accept(password, address)
        hashed = await self._hasher.hash(accepted, HashingClient.of(client))
        async with self._unit_of_work() as work:
            await work.users.lock_administrators()  # so that the inviter's roles stay as they are
            subject_id = await work.one_time_tokens.consume(*presented, at=self._clock.now())
            invitation = await self._acceptable(work, subject_id)
            user = self._new_user(invitation, name, hashed)
            await work.registrations.lock(address.canonical)
            try:
                await work.users.add(user)
            except EmailTaken as error:
                raise InvalidOneTimeToken from error
            await work.registrations.delete_for(address.canonical)
            await work.invitations.delete_for(address.canonical)
            granted: list[JSON] = list(user.roles)
            metadata: dict[str, JSON] = {"roles": granted, "invited_by": str(invitation.invited_by)}
            work.audit.record(
                AuditEvent(
                    AuditAction.REGISTERED,
                    reason="invitation",
                    actor_id=user.id,
                    subject_id=user.id,
                    client=client,
                    metadata=metadata,
                )
            )

    async def _acceptable(self, work: AuthUnitOfWork, invitation_id: UUID | None) -> Invitation:
        """Return the invitation; raises `InvalidOneTimeToken` unless it may become an account now."""
        invitation = await work.invitations.get(invitation_id) if invitation_id else None
        if invitation is None or await work.users.by_email(invitation.email.canonical) is not None:
            raise InvalidOneTimeToken
        all_roles = await self._roles.stored(work)
        needed = {USERS_WRITE.name, *all_roles.permissions_of(invitation.roles)}
        inviter_may = await self._roles.has_all(work, all_roles, invitation.invited_by, needed)
        if not inviter_may or not all_roles.has_all(invitation.roles):
            raise InvalidOneTimeToken
        return invitation

    def _new_user(self, invitation: Invitation, name: str | None, password: PasswordHash) -> User:
        return User(
            id=self._new_id(),
            email=invitation.email,
            email_verified=True,
            name=name,
            password=password,
            roles=invitation.roles,
            created_at=self._clock.now(),
        )

    def _record(
        self, work: AuthUnitOfWork, action: AuditAction, principal: Principal, invitation: Invitation, client: Client
    ) -> None:
        roles: list[JSON] = list(invitation.roles)
        metadata: dict[str, JSON] = {
            "invitation": str(invitation.id),
            "address": self._pseudonyms.of_address(invitation.email),
            "roles": roles,
        }
        work.audit.record(AuditEvent(action, actor_id=principal.user_id, client=client, metadata=metadata))

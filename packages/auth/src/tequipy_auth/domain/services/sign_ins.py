"""Notices of logins from new devices and address ranges, and the link that ends such a session."""

from collections.abc import Callable

from tequipy_auth.domain.audit import AuditAction
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.entities import Session, User, UserStatus
from tequipy_auth.domain.exceptions import InvalidOneTimeToken
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.one_time_tokens import read_one_time_token, record_refused_token
from tequipy_auth.domain.services.session_issuer import SessionIssuer, SessionRevocation
from tequipy_auth.domain.sign_ins import is_new_range
from tequipy_auth.domain.task_names import SEND_MAIL
from tequipy_auth.domain.value_objects import Client, OneTimeTokenValue, Purpose
from tequipy_platform import Clock, retry_conflicts


class SignInService:
    """Tells owners of logins that may not be theirs, and ends the sessions of those that are not."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        devices: DeviceMarks,
        issuer: SessionIssuer,
        notices: bool,
        clock: Clock,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._devices = devices
        self._issuer = issuer
        self._notices = notices
        self._clock = clock
        self._operations = operations

    async def announce(self, work: AuthUnitOfWork, user: User, session: Session, client: Client) -> None:
        """Request the mail about a login from a new device or address range, in the login's unit of work.

        Call it before the login is stored: `user`, the devices and the sessions are compared as they were. The first
        login of an account is its owner's, who has just registered.
        """
        if self._notices and user.last_login_at is not None and await self._is_new(work, user, client):
            work.outbox.add(SEND_MAIL, mail="new_sign_in", subject_id=str(session.id))

    @counted("end_session")
    @retry_conflicts
    async def end_session(self, token: str, *, client: Client) -> None:
        """End a session, or the one that has replaced it, with the token of the mail about its login.

        The owner is mailed a link to reset the password, because a stranger knows it. Raises `InvalidOneTimeToken` for
        any fault of the token.
        """
        value = read_one_time_token(token)
        try:
            revoked_ids = await self._end_session(value, client)
        except InvalidOneTimeToken as error:
            async with self._unit_of_work() as work:
                await record_refused_token(work, value, AuditAction.SESSION_REVOKED, error.code, client)
            raise
        await self._issuer.publish(revoked_ids)

    async def _is_new(self, work: AuthUnitOfWork, user: User, client: Client) -> bool:
        if await self._devices.recognise(work, user, client.device_mark) is None:
            return True
        return is_new_range(client, await work.sessions.all_of(user.id))

    async def _end_session(self, token: OneTimeTokenValue, client: Client) -> tuple[str, ...]:
        presented, now = (token.id, Purpose.END_SESSION, token.secret_hash), self._clock.now()
        async with self._unit_of_work() as work:
            session_id = await work.one_time_tokens.peek(*presented, at=now)
            session = await work.sessions.get(session_id) if session_id else None
            # The lock makes a concurrent reauthentication wait, which would replace the session unseen.
            user = await work.users.lock(session.user_id) if session else None
            if session is None or user is None or user.status is not UserStatus.ACTIVE:
                raise InvalidOneTimeToken
            if await work.one_time_tokens.consume(*presented, at=now) is None:
                raise InvalidOneTimeToken
            revocation = SessionRevocation("ended_by_link", now, client=client)
            revoked_ids = await self._issuer.revoke_latest(work, user.id, session.id, revocation)
            work.outbox.add(SEND_MAIL, mail="session_ended", subject_id=str(user.id))
        return revoked_ids

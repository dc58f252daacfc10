"""Logging in."""

from collections.abc import Callable

from tequipy_auth.domain import passwords
from tequipy_auth.domain.audit import AuditAction, AuditEvent, Outcome
from tequipy_auth.domain.entities import User
from tequipy_auth.domain.exceptions import InvalidCredentials
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.ports import AddressParser, PasswordHasher
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.session_starter import SessionStarter
from tequipy_auth.domain.services.token_issuer import TokenIssuer
from tequipy_auth.domain.value_objects import Client, TokenPair


class LoginService:
    """Begins sessions for those who prove who they are."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        addresses: AddressParser,
        hasher: PasswordHasher,
        starter: SessionStarter,
        issuer: TokenIssuer,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._addresses = addresses
        self._hasher = hasher
        self._starter = starter
        self._issuer = issuer
        self.operations = operations

    @counted("login")
    async def with_password(self, *, email: str, password: str, client: Client) -> TokenPair:
        """Begin a session; raises `InvalidAddress` and `InvalidCredentials`.

        An unknown address costs the same hash as a known one.
        """
        address = self._addresses.parse(email)
        async with self._unit_of_work() as work:
            user = await work.users.by_email(address.canonical)
        matches = await self._hasher.verify(passwords.normalise(password), user.password if user else None)
        if user is None or not matches:
            async with self._unit_of_work() as work:
                work.audit.record(_failed(user, client))
            raise InvalidCredentials
        new = await self._starter.prepare(user, client, amr=("pwd",))
        async with self._unit_of_work() as work:
            news = await self._starter.keep(work, new)
            work.audit.record(
                AuditEvent(
                    AuditAction.LOGIN_OK,
                    actor_id=user.id,
                    subject_id=user.id,
                    session_id=new.session.id,
                    client=client,
                )
            )
        await self._starter.publish(news)
        return await self._issuer.pair(user, new.session, new.value, new.session.created_at)


def _failed(user: User | None, client: Client) -> AuditEvent:
    return AuditEvent(
        AuditAction.LOGIN_FAILED,
        Outcome.FAILURE,
        "invalid_credentials",
        subject_id=user.id if user else None,
        client=client,
    )

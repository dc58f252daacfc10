"""The `Auth` object: all services of the package and the resources that they need."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AccessTokens
from tequipy_auth.domain.repositories import AuditLog
from tequipy_auth.domain.services.accounts import AccountService
from tequipy_auth.domain.services.administration import AdministrationService
from tequipy_auth.domain.services.deletion import DeletionService
from tequipy_auth.domain.services.email_changes import EmailChangeService
from tequipy_auth.domain.services.export import ExportService
from tequipy_auth.domain.services.housekeeping import Housekeeping
from tequipy_auth.domain.services.invitations import InvitationService
from tequipy_auth.domain.services.keys import KeyService
from tequipy_auth.domain.services.login import LoginService
from tequipy_auth.domain.services.mailing import MailingService
from tequipy_auth.domain.services.passwords import PasswordService
from tequipy_auth.domain.services.registration import RegistrationService
from tequipy_auth.domain.services.roles import RoleService
from tequipy_auth.domain.services.session_issuer import SessionIssuer
from tequipy_auth.domain.services.sessions import SessionService
from tequipy_auth.domain.services.sign_ins import SignInService
from tequipy_platform import Mailer


@dataclass(frozen=True, slots=True)
class Auth:
    """All services of auth.

    The object is an async context manager: entering it opens `resources`, leaving it closes them.
    """

    registration: RegistrationService
    login: LoginService
    sign_ins: SignInService
    passwords: PasswordService
    sessions: SessionService
    email_changes: EmailChangeService
    accounts: AccountService
    roles: RoleService
    administration: AdministrationService
    invitations: InvitationService
    deletion: DeletionService
    exports: ExportService
    access_tokens: AccessTokens
    session_issuer: SessionIssuer
    audit_log: AuditLog
    keys: KeyService | None
    """None when the signing keys are files: then the keys are rotated by replacing the files."""
    policy: AuthPolicy
    housekeeping: Housekeeping
    mailing: Callable[[Mailer], MailingService]
    """Builds the mailing service for a mailer; only a worker calls it."""
    local: bool
    """Whether the app runs on a developer's machine: cookies lack `Secure`, and the app's own host is an allowed
    origin."""
    origins: frozenset[str]
    """The origins whose pages may use the refresh cookie (scheme, host and port, RFC 6454)."""
    origins_setting: str | None
    """The name of the setting that lists the origins, for refusals; None: they do not name it."""
    resources: Sequence[AbstractAsyncContextManager[object]]
    """The resources of the services, opened in this order."""
    _open: AsyncExitStack = field(default_factory=AsyncExitStack, init=False, repr=False, compare=False)

    async def __aenter__(self) -> Self:
        # If one resource fails to open, the stack closes those that are already open.
        async with AsyncExitStack() as opened:
            for resource in self.resources:
                await opened.enter_async_context(resource)
            self._open.push_async_exit(opened.pop_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._open.aclose()

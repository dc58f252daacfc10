"""The unit of work that combines all repositories in one transaction."""

from tequipy_auth.domain.lockout import LoginAttempts
from tequipy_auth.domain.repositories.accounts import EmailChanges, Registrations, Roles, Users
from tequipy_auth.domain.repositories.audit import AuditTrail
from tequipy_auth.domain.repositories.invitations import Invitations
from tequipy_auth.domain.repositories.one_time_tokens import MailCharges, OneTimeTokens
from tequipy_auth.domain.repositories.sessions import Devices, RefreshTokens, Sessions
from tequipy_auth.domain.repositories.signing_keys import SigningKeys
from tequipy_platform import UnitOfWork


class AuthUnitOfWork(UnitOfWork):
    """A transaction over all repositories of auth."""

    registrations: Registrations
    invitations: Invitations
    users: Users
    email_changes: EmailChanges
    sessions: Sessions
    refresh_tokens: RefreshTokens
    one_time_tokens: OneTimeTokens
    devices: Devices
    attempts: LoginAttempts
    mail_charges: MailCharges
    audit: AuditTrail
    signing_keys: SigningKeys
    roles: Roles

"""Repositories, one for each kind of row, and the unit of work that combines them in one transaction."""

from tequipy_auth.domain.repositories.accounts import EmailChanges, Registrations, Roles, UserFilter, Users
from tequipy_auth.domain.repositories.audit import AuditLog, AuditTrail
from tequipy_auth.domain.repositories.invitations import Invitations
from tequipy_auth.domain.repositories.one_time_tokens import MailCharges, OneTimeTokens
from tequipy_auth.domain.repositories.sessions import Devices, RefreshTokens, RotationOutcome, Sessions
from tequipy_auth.domain.repositories.signing_keys import SigningKeys
from tequipy_auth.domain.repositories.unit_of_work import AuthUnitOfWork

__all__ = [
    "AuditLog",
    "AuditTrail",
    "AuthUnitOfWork",
    "Devices",
    "EmailChanges",
    "Invitations",
    "MailCharges",
    "OneTimeTokens",
    "RefreshTokens",
    "Registrations",
    "Roles",
    "RotationOutcome",
    "Sessions",
    "SigningKeys",
    "UserFilter",
    "Users",
]

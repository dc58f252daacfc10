"""Accounts, passwords, tokens and sessions: the public types, services and ports. Standard library only.

The other public modules are `wiring`, `api` (needs its extra), `tasks`, `migrations`, `testing` and `conformance`.
"""

from tequipy_auth.domain.audit import AuditAction, AuditEvent, AuditFilter, AuditRecord, Outcome
from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.caches import CACHE_POLICIES
from tequipy_auth.domain.entities import (
    Device,
    KeyState,
    OneTimeToken,
    RefreshToken,
    Registration,
    Session,
    SigningKey,
    User,
    UserStatus,
)
from tequipy_auth.domain.exceptions import (
    AmbiguousCredentials,
    CsrfFailed,
    EmailNotVerified,
    EmailTaken,
    InvalidAccessToken,
    InvalidAddress,
    InvalidCredentials,
    InvalidName,
    InvalidOneTimeToken,
    KeyNotPublishedLongEnough,
    KeyUnusable,
    LoginLocked,
    PasswordRequired,
    ReauthRequired,
    RefreshExpired,
    RefreshInvalid,
    RefreshMissing,
    RefreshReused,
    RefreshSuperseded,
    SessionRevoked,
    UnknownKey,
    WeakPassword,
)
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.lockout import LoginAttempts
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import (
    AccessTokens,
    AddressParser,
    BreachedPasswords,
    CommonPasswords,
    KeyMaker,
    PasswordHasher,
    Revocations,
    SecretHasher,
    SuccessorKeys,
)
from tequipy_auth.domain.repositories import (
    AuditLog,
    AuditTrail,
    AuthUnitOfWork,
    Devices,
    OneTimeTokens,
    RefreshTokens,
    Registrations,
    Roles,
    Sessions,
    SigningKeys,
    UserFilter,
    Users,
)
from tequipy_auth.domain.roles import Permission, Role
from tequipy_auth.domain.services.accounts import AccountService
from tequipy_auth.domain.services.administration import AdministrationService
from tequipy_auth.domain.services.housekeeping import Housekeeping
from tequipy_auth.domain.services.keys import KeyService
from tequipy_auth.domain.services.login import LoginService
from tequipy_auth.domain.services.mailing import MailingService
from tequipy_auth.domain.services.passwords import PasswordService
from tequipy_auth.domain.services.registration import RegistrationService
from tequipy_auth.domain.services.roles import RoleService
from tequipy_auth.domain.services.sessions import SessionService
from tequipy_auth.domain.value_objects import (
    AccessToken,
    Client,
    EmailAddress,
    OneTimeTokenValue,
    PasswordHash,
    Principal,
    Profile,
    Purpose,
    RefreshTokenValue,
    TokenPair,
)

__all__ = [
    "CACHE_POLICIES",
    "AccessToken",
    "AccessTokens",
    "AccountService",
    "AddressParser",
    "AdministrationService",
    "AmbiguousCredentials",
    "AuditAction",
    "AuditEvent",
    "AuditFilter",
    "AuditLog",
    "AuditRecord",
    "AuditTrail",
    "Auth",
    "AuthPolicy",
    "AuthUnitOfWork",
    "BreachedPasswords",
    "Client",
    "CommonPasswords",
    "CsrfFailed",
    "Device",
    "Devices",
    "EmailAddress",
    "EmailNotVerified",
    "EmailTaken",
    "HashingClient",
    "Housekeeping",
    "InvalidAccessToken",
    "InvalidAddress",
    "InvalidCredentials",
    "InvalidName",
    "InvalidOneTimeToken",
    "KeyMaker",
    "KeyNotPublishedLongEnough",
    "KeyService",
    "KeyState",
    "KeyUnusable",
    "LoginAttempts",
    "LoginLocked",
    "LoginService",
    "MailingService",
    "OneTimeToken",
    "OneTimeTokenValue",
    "OneTimeTokens",
    "Operations",
    "Outcome",
    "PasswordHash",
    "PasswordHasher",
    "PasswordRequired",
    "PasswordService",
    "Permission",
    "Principal",
    "Profile",
    "Purpose",
    "ReauthRequired",
    "RefreshExpired",
    "RefreshInvalid",
    "RefreshMissing",
    "RefreshReused",
    "RefreshSuperseded",
    "RefreshToken",
    "RefreshTokenValue",
    "RefreshTokens",
    "Registration",
    "RegistrationService",
    "Registrations",
    "Revocations",
    "Role",
    "RoleService",
    "Roles",
    "SecretHasher",
    "Session",
    "SessionRevoked",
    "SessionService",
    "Sessions",
    "SigningKey",
    "SigningKeys",
    "SuccessorKeys",
    "TokenPair",
    "UnknownKey",
    "User",
    "UserFilter",
    "UserStatus",
    "Users",
    "WeakPassword",
]

"""Construction of auth's services from their ports."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.lockout import Lockout
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.passwords import PasswordRules
from tequipy_auth.domain.policy import AuthPolicy, RegistrationMode
from tequipy_auth.domain.ports import (
    AccessTokens,
    AddressParser,
    BreachedPasswords,
    CommonPasswords,
    PasswordHasher,
    PersonalData,
    Revocations,
    SecretHasher,
    SuccessorKeys,
)
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuditLog, AuthUnitOfWork
from tequipy_auth.domain.roles import Permission, RoleMap
from tequipy_auth.domain.services.accounts import AccountService
from tequipy_auth.domain.services.administration import AdministrationService
from tequipy_auth.domain.services.deletion import DeletionService
from tequipy_auth.domain.services.email_changes import EmailChangeService
from tequipy_auth.domain.services.export import ExportService
from tequipy_auth.domain.services.housekeeping import Housekeeping
from tequipy_auth.domain.services.invitations import InvitationService
from tequipy_auth.domain.services.keys import KeyService
from tequipy_auth.domain.services.login import LoginService
from tequipy_auth.domain.services.mail_budget import MailBudget
from tequipy_auth.domain.services.mailing import MailingService
from tequipy_auth.domain.services.one_time_tokens import LinkMinter
from tequipy_auth.domain.services.password_check import PasswordCheck
from tequipy_auth.domain.services.passwords import PasswordService
from tequipy_auth.domain.services.registration import RegistrationService
from tequipy_auth.domain.services.roles import RoleService
from tequipy_auth.domain.services.session_issuer import SessionIssuer
from tequipy_auth.domain.services.sessions import SessionService
from tequipy_auth.domain.services.sign_ins import SignInService
from tequipy_auth.domain.value_objects import Profile
from tequipy_caching import Cache
from tequipy_platform import Clock, IdSource, Mailer, MailTemplates, RandomSource


@dataclass(frozen=True, kw_only=True)
class Composition:
    """The ports and settings that the services need, and a method that builds all services from them."""

    unit_of_work: Callable[[], AuthUnitOfWork]
    single_read: Callable[[], AuthUnitOfWork]
    """Units of work that need not be transactions, because each is used for one read."""
    policy: AuthPolicy
    public_url: str
    """The public URL of the app, without a trailing slash."""
    registration_mode: RegistrationMode
    sign_in_notices: bool
    """Whether owners are told by mail of logins from new devices and address ranges."""
    clock: Clock
    new_id: IdSource
    random: RandomSource
    addresses: AddressParser
    hasher: PasswordHasher
    common_passwords: CommonPasswords
    breached_passwords: BreachedPasswords | None
    """None: passwords that are known from data breaches are accepted."""
    pseudonyms: Pseudonyms
    secrets: SecretHasher
    successor_keys: SuccessorKeys
    access_tokens: AccessTokens
    revocations: Revocations
    profiles: Cache[Profile]
    permissions: Sequence[Permission]
    roles: Cache[RoleMap]
    templates: MailTemplates
    operations: Operations
    audit_log: AuditLog
    personal_data: Sequence[PersonalData]
    keys: KeyService | None
    local: bool
    origins: frozenset[str]
    origins_setting: str | None = None
    resources: Sequence[AbstractAsyncContextManager[object]] = ()

    def auth(self) -> Auth:
        """Build the services and return `Auth`."""
        return Auth(
            registration=self._registration,
            login=self._login,
            sign_ins=self._sign_ins,
            passwords=self._passwords,
            sessions=self._sessions,
            email_changes=EmailChangeService(
                self.unit_of_work,
                addresses=self.addresses,
                accounts=self._accounts,
                issuer=self._issuer,
                pseudonyms=self.pseudonyms,
                policy=self.policy,
                clock=self.clock,
                new_id=self.new_id,
                operations=self.operations,
            ),
            accounts=self._accounts,
            roles=self._roles,
            administration=AdministrationService(
                self.unit_of_work,
                accounts=self._accounts,
                roles=self._roles,
                issuer=self._issuer,
                lockout=self._lockout,
                clock=self.clock,
                operations=self.operations,
            ),
            deletion=DeletionService(
                self.unit_of_work,
                check=self._check,
                issuer=self._issuer,
                lockout=self._lockout,
                pseudonyms=self.pseudonyms,
                policy=self.policy,
                clock=self.clock,
                operations=self.operations,
            ),
            exports=ExportService(
                self.unit_of_work,
                audit_log=self.audit_log,
                personal_data=self.personal_data,
                operations=self.operations,
            ),
            invitations=InvitationService(
                self.unit_of_work,
                addresses=self.addresses,
                rules=self._rules,
                hasher=self.hasher,
                roles=self._roles,
                pseudonyms=self.pseudonyms,
                clock=self.clock,
                new_id=self.new_id,
                operations=self.operations,
            ),
            housekeeping=Housekeeping(self.unit_of_work, self.clock, self.policy),
            access_tokens=self.access_tokens,
            session_issuer=self._issuer,
            keys=self.keys,
            policy=self.policy,
            audit_log=self.audit_log,
            mailing=self._mailing,
            local=self.local,
            origins=self.origins,
            origins_setting=self.origins_setting,
            resources=self.resources,
        )

    @cached_property
    def _accounts(self) -> AccountService:
        return AccountService(self.unit_of_work, profiles=self.profiles, operations=self.operations)

    @cached_property
    def _roles(self) -> RoleService:
        return RoleService(
            self.unit_of_work,
            permissions=self.permissions,
            roles=self.roles,
            clock=self.clock,
            operations=self.operations,
        )

    @cached_property
    def _registration(self) -> RegistrationService:
        return RegistrationService(
            self.unit_of_work,
            addresses=self.addresses,
            rules=self._rules,
            hasher=self.hasher,
            pseudonyms=self.pseudonyms,
            mode=self.registration_mode,
            clock=self.clock,
            new_id=self.new_id,
            operations=self.operations,
        )

    @cached_property
    def _login(self) -> LoginService:
        return LoginService(
            self.unit_of_work,
            addresses=self.addresses,
            check=self._check,
            devices=self._devices,
            issuer=self._issuer,
            sign_ins=self._sign_ins,
            policy=self.policy,
            clock=self.clock,
            operations=self.operations,
        )

    @cached_property
    def _sign_ins(self) -> SignInService:
        return SignInService(
            self.unit_of_work,
            devices=self._devices,
            issuer=self._issuer,
            notices=self.sign_in_notices,
            clock=self.clock,
            operations=self.operations,
        )

    @cached_property
    def _passwords(self) -> PasswordService:
        return PasswordService(
            self.unit_of_work,
            addresses=self.addresses,
            rules=self._rules,
            hasher=self.hasher,
            check=self._check,
            devices=self._devices,
            lockout=self._lockout,
            issuer=self._issuer,
            pseudonyms=self.pseudonyms,
            clock=self.clock,
            new_id=self.new_id,
            operations=self.operations,
        )

    @cached_property
    def _sessions(self) -> SessionService:
        return SessionService(
            self.unit_of_work,
            single_read=self.single_read,
            secrets=self.secrets,
            successor_keys=self.successor_keys,
            access_tokens=self.access_tokens,
            issuer=self._issuer,
            policy=self.policy,
            clock=self.clock,
            new_id=self.new_id,
            operations=self.operations,
        )

    def _mailing(self, mailer: Mailer) -> MailingService:
        return MailingService(
            self.unit_of_work,
            mailer=mailer,
            templates=self.templates,
            links=LinkMinter(self.policy, self.public_url, self.clock, self.new_id, self.random),
            budget=MailBudget(self.policy, self.pseudonyms, self.clock),
            policy=self.policy,
            public_url=self.public_url,
            clock=self.clock,
            operations=self.operations,
        )

    @cached_property
    def _issuer(self) -> SessionIssuer:
        return SessionIssuer(
            access_tokens=self.access_tokens,
            revocations=self.revocations,
            secrets=self.secrets,
            successor_keys=self.successor_keys,
            policy=self.policy,
            clock=self.clock,
            new_id=self.new_id,
            random=self.random,
        )

    @cached_property
    def _check(self) -> PasswordCheck:
        return PasswordCheck(
            self.unit_of_work,
            hasher=self.hasher,
            devices=self._devices,
            lockout=self._lockout,
            pseudonyms=self.pseudonyms,
        )

    @cached_property
    def _lockout(self) -> Lockout:
        return Lockout(self.pseudonyms, self.clock)

    @cached_property
    def _devices(self) -> DeviceMarks:
        return DeviceMarks(self.pseudonyms, self.clock, self.random)

    @cached_property
    def _rules(self) -> PasswordRules:
        return PasswordRules(self.policy, self.common_passwords, self.breached_passwords)

"""Fakes of every port, which keep its promises in memory, and auth built on them: no database, no waiting."""

import secrets
from typing import Final

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.devices import Devices
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.passwords import PasswordRules
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import PasswordHasher, Revocations
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.services.accounts import AccountService
from tequipy_auth.domain.services.housekeeping import Housekeeping
from tequipy_auth.domain.services.keys import KeyService
from tequipy_auth.domain.services.lockout import Lockout
from tequipy_auth.domain.services.login import LoginService
from tequipy_auth.domain.services.mail_budget import MailBudget
from tequipy_auth.domain.services.mailing import MailingService
from tequipy_auth.domain.services.one_time_tokens import LinkMinter
from tequipy_auth.domain.services.password_check import PasswordCheck
from tequipy_auth.domain.services.passwords import PasswordService
from tequipy_auth.domain.services.registration import RegistrationService
from tequipy_auth.domain.services.session_ender import SessionEnder
from tequipy_auth.domain.services.session_starter import SessionStarter
from tequipy_auth.domain.services.sessions import SessionService
from tequipy_auth.domain.services.token_issuer import TokenIssuer
from tequipy_auth.domain.value_objects import Profile
from tequipy_auth.testing.ports import (
    FakeAccessTokens,
    FakeCommonPasswords,
    FakePasswordHasher,
    FakeSecretHasher,
    FakeSuccessorKeys,
    MemoryRevocations,
    PlainMailTemplates,
    RecordingOperations,
    SimpleAddressParser,
)
from tequipy_auth.testing.repositories import MemoryAuditLog, MemoryAuthUnitOfWork
from tequipy_auth.testing.signing_keys import FakeKeyMaker
from tequipy_caching import RateLimiter
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform import Clock, SystemClock

__all__ = [
    "COMMON_PASSWORD",
    "PUBLIC_URL",
    "FakeAccessTokens",
    "FakeCommonPasswords",
    "FakeKeyMaker",
    "FakePasswordHasher",
    "FakeSecretHasher",
    "FakeSuccessorKeys",
    "MemoryAuditLog",
    "MemoryAuthUnitOfWork",
    "MemoryRevocations",
    "PlainMailTemplates",
    "RecordingOperations",
    "SimpleAddressParser",
    "build_fake_auth",
]

PUBLIC_URL: Final = "http://testserver"
"""Where a fake auth says it can be reached."""

COMMON_PASSWORD: Final = "password1234"  # noqa: S105 -- nobody's
"""The one password that a fake auth knows as common."""


def build_fake_auth(
    work: MemoryAuthUnitOfWork | None = None,
    *,
    clock: Clock | None = None,
    revocations: Revocations | None = None,
    policy: AuthPolicy | None = None,
    hasher: PasswordHasher | None = None,
    limiter: RateLimiter | None = None,
    operations: Operations | None = None,
    local: bool = False,
    origins: frozenset[str] = frozenset({PUBLIC_URL}),
) -> Auth:
    """Return auth in memory; keep `work` to look at what it holds, and `clock` to turn the time.

    Two of them on one `work` and `revocations` are two processes on one database and one Redis. Mails are
    `PlainMailTemplates`.
    """
    clock = clock or SystemClock()
    held = work or MemoryAuthUnitOfWork(clock)
    policy = policy or AuthPolicy(public_url=PUBLIC_URL)
    new_id = held.new_id
    addresses, hasher = SimpleAddressParser(), hasher or FakePasswordHasher()
    revocations = revocations or MemoryRevocations(clock, life=policy.revocation_life)
    access_tokens = FakeAccessTokens(clock, ttl=policy.access_token_ttl, revocations=revocations)
    issuer = TokenIssuer(access_tokens, policy)
    secret_hasher, successor_keys = FakeSecretHasher(), FakeSuccessorKeys()
    operations = operations or RecordingOperations()
    ender = SessionEnder(revocations)
    pseudonyms = Pseudonyms(b"pseudonyms")
    devices = Devices(pseudonyms, secrets.token_bytes)
    lockout = Lockout(pseudonyms, devices, clock)
    check = PasswordCheck(lambda: held, hasher=hasher, lockout=lockout, pseudonyms=pseudonyms)
    mail_budget = MailBudget(limiter)
    rules = PasswordRules(policy, FakeCommonPasswords(COMMON_PASSWORD))
    return Auth(
        registration=RegistrationService(
            lambda: held,
            addresses=addresses,
            rules=rules,
            hasher=hasher,
            pseudonyms=pseudonyms,
            mail_budget=mail_budget,
            policy=policy,
            clock=clock,
            new_id=new_id,
            operations=operations,
        ),
        login=LoginService(
            lambda: held,
            addresses=addresses,
            check=check,
            devices=devices,
            starter=SessionStarter(
                ender=ender,
                secrets=secret_hasher,
                successor_keys=successor_keys,
                policy=policy,
                clock=clock,
                new_id=new_id,
                random=secrets.token_bytes,
            ),
            issuer=issuer,
            policy=policy,
            clock=clock,
            operations=operations,
        ),
        passwords=PasswordService(
            lambda: held,
            addresses=addresses,
            rules=rules,
            hasher=hasher,
            check=check,
            lockout=lockout,
            ender=ender,
            pseudonyms=pseudonyms,
            mail_budget=mail_budget,
            clock=clock,
            new_id=new_id,
            operations=operations,
        ),
        sessions=SessionService(
            lambda: held,
            secrets=secret_hasher,
            successor_keys=successor_keys,
            access_tokens=access_tokens,
            issuer=issuer,
            ender=ender,
            policy=policy,
            clock=clock,
            new_id=new_id,
            operations=operations,
        ),
        accounts=AccountService(
            lambda: held, profiles=MemoryCacheManager().cache("user_profile", Profile), operations=operations
        ),
        housekeeping=Housekeeping(lambda: held, clock),
        access_tokens=access_tokens,
        audit_log=MemoryAuditLog(held.audit),
        session_ender=ender,
        keys=KeyService(
            lambda: held,
            maker=FakeKeyMaker(),
            revocations=revocations,
            policy=policy,
            clock=clock,
            operations=operations,
        ),
        policy=policy,
        mailing=lambda mailer: MailingService(
            lambda: held,
            mailer=mailer,
            templates=PlainMailTemplates(),
            links=LinkMinter(policy, clock, new_id, secrets.token_bytes),
            policy=policy,
            clock=clock,
        ),
        local=local,
        origins=origins,
    )

"""Fakes of all ports, which keep data in memory, and `build_fake_auth`, which needs no database."""

import secrets
from collections.abc import Iterable
from typing import Final

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.caches import CACHE_POLICIES, ROLES, USER_PROFILE
from tequipy_auth.domain.composition import Composition
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.policy import AuthPolicy, RegistrationMode
from tequipy_auth.domain.ports import BreachedPasswords, PasswordHasher, PersonalData, Revocations
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.roles import PERMISSIONS, Permission, RoleMap
from tequipy_auth.domain.services.keys import KeyService
from tequipy_auth.domain.value_objects import Profile
from tequipy_auth.testing.ports import (
    FakeAccessTokens,
    FakeBreachedPasswords,
    FakeCommonPasswords,
    FakeKeyMaker,
    FakePasswordHasher,
    FakeSecretHasher,
    FakeSuccessorKeys,
    MemoryRevocations,
    RecordingOperations,
    SimpleAddressParser,
)
from tequipy_auth.testing.repositories import MemoryAuditLog, MemoryAuthUnitOfWork
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform import Clock, SystemClock
from tequipy_platform.testing import PlainMailTemplates

__all__ = [
    "COMMON_PASSWORD",
    "PUBLIC_URL",
    "FakeAccessTokens",
    "FakeBreachedPasswords",
    "FakeCommonPasswords",
    "FakeKeyMaker",
    "FakePasswordHasher",
    "FakeSecretHasher",
    "FakeSuccessorKeys",
    "MemoryAuditLog",
    "MemoryAuthUnitOfWork",
    "MemoryRevocations",
    "RecordingOperations",
    "SimpleAddressParser",
    "build_fake_auth",
]

PUBLIC_URL: Final = "http://testserver"
"""The public URL of a fake auth."""

COMMON_PASSWORD: Final = "password1234"  # noqa: S105 -- not a real password
"""The only password that a fake auth treats as common."""


def build_fake_auth(
    work: MemoryAuthUnitOfWork | None = None,
    *,
    clock: Clock | None = None,
    revocations: Revocations | None = None,
    policy: AuthPolicy | None = None,
    registration_mode: RegistrationMode = "private",
    sign_in_notices: bool = True,
    hasher: PasswordHasher | None = None,
    operations: Operations | None = None,
    breached_passwords: BreachedPasswords | None = None,
    local: bool = False,
    origins: frozenset[str] = frozenset({PUBLIC_URL}),
    origins_setting: str | None = None,
    permissions: Iterable[Permission] = (),
    personal_data: Iterable[PersonalData] = (),
) -> Auth:
    """Build auth in memory; pass `work` to inspect its data, and `clock` to control the time.

    Two instances with the same `work` and `revocations` act like two processes with one database and one Redis. Mails
    are rendered by `tequipy_platform.testing.PlainMailTemplates`.
    """
    clock = clock or SystemClock()
    unit_of_work = work or MemoryAuthUnitOfWork(clock)
    policy = policy or AuthPolicy()
    revocations = revocations or MemoryRevocations(clock, ttl=policy.revocation_ttl)
    operations = operations or RecordingOperations()
    cache = MemoryCacheManager(CACHE_POLICIES)
    return Composition(
        unit_of_work=lambda: unit_of_work,
        single_read=lambda: unit_of_work,
        policy=policy,
        public_url=PUBLIC_URL,
        registration_mode=registration_mode,
        sign_in_notices=sign_in_notices,
        clock=clock,
        new_id=unit_of_work.new_id,
        random=secrets.token_bytes,
        addresses=SimpleAddressParser(),
        hasher=hasher or FakePasswordHasher(),
        common_passwords=FakeCommonPasswords(COMMON_PASSWORD),
        breached_passwords=breached_passwords,
        pseudonyms=Pseudonyms(b"pseudonyms"),
        secrets=FakeSecretHasher(),
        successor_keys=FakeSuccessorKeys(),
        access_tokens=FakeAccessTokens(clock, ttl=policy.access_token_ttl, revocations=revocations),
        revocations=revocations,
        profiles=cache.cache(USER_PROFILE, Profile),
        permissions=(*PERMISSIONS, *permissions),
        roles=cache.cache(ROLES, RoleMap),
        templates=PlainMailTemplates("tequipy_auth"),
        operations=operations,
        audit_log=MemoryAuditLog(unit_of_work.audit),
        personal_data=tuple(personal_data),
        keys=KeyService(
            lambda: unit_of_work,
            maker=FakeKeyMaker(),
            revocations=revocations,
            policy=policy,
            clock=clock,
            operations=operations,
        ),
        local=local,
        origins=origins,
        origins_setting=origins_setting,
    ).auth()

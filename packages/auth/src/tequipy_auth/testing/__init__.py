"""Fakes of every port, which keep its promises in memory, and auth built on them: no database, no waiting."""

import secrets
from dataclasses import replace
from typing import Final

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.composition import Composition
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import PasswordHasher, Revocations
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.roles import RoleMap
from tequipy_auth.domain.services.keys import KeyService
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
    revocations = revocations or MemoryRevocations(clock, ttl=policy.revocation_ttl)
    operations = operations or RecordingOperations()
    cache = MemoryCacheManager()
    composition = Composition(
        unit_of_work=lambda: held,
        policy=policy,
        clock=clock,
        new_id=held.new_id,
        random=secrets.token_bytes,
        addresses=SimpleAddressParser(),
        hasher=hasher or FakePasswordHasher(),
        common_passwords=FakeCommonPasswords(COMMON_PASSWORD),
        pseudonyms=Pseudonyms(b"pseudonyms"),
        secrets=FakeSecretHasher(),
        successor_keys=FakeSuccessorKeys(),
        access_tokens=FakeAccessTokens(clock, ttl=policy.access_token_ttl, revocations=revocations),
        revocations=revocations,
        profiles=cache.cache("user_profile", Profile),
        config=cache.cache("config", RoleMap),
        templates=PlainMailTemplates(),
        operations=operations,
        audit_log=MemoryAuditLog(held.audit),
        keys=KeyService(
            lambda: held,
            maker=FakeKeyMaker(),
            revocations=revocations,
            policy=policy,
            clock=clock,
            operations=operations,
        ),
    )
    return replace(composition.auth(), local=local, origins=origins)

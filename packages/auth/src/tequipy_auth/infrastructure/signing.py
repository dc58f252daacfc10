"""Access tokens and the keys that sign them, of a process that serves requests."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from tequipy_auth.domain.caches import ACCESS_TOKENS
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.ports import AccessTokens, Revocations
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.keys import KeyService
from tequipy_auth.infrastructure.key_ring import KeyRing
from tequipy_auth.infrastructure.keys import EncryptedKeys, FileKeys, StoredKeys
from tequipy_auth.infrastructure.settings import AuthSettings, keys_by_version
from tequipy_auth.infrastructure.tokens import JwtAccessTokens, VerifiedToken
from tequipy_caching import CacheManager
from tequipy_platform import SystemClock
from tequipy_platform.database import uuid7


@dataclass(frozen=True, slots=True)
class Signing:
    """What a process needs to issue and verify access tokens."""

    access_tokens: AccessTokens
    ring: KeyRing
    keys: KeyService | None
    """The service that rotates the keys; None if the keys are files."""


def build_signing(
    settings: AuthSettings,
    *,
    public_url: str,
    unit_of_work: Callable[[], AuthUnitOfWork],
    cache: CacheManager,
    revocations: Revocations,
    operations: Operations,
) -> Signing:
    """Build them; `ring` must be open while they are used."""
    ring, keys = _signing_keys(settings, unit_of_work, revocations, operations)
    return Signing(_access_tokens(settings, public_url, ring, cache, revocations), ring, keys)


def _access_tokens(
    settings: AuthSettings, public_url: str, ring: KeyRing, cache: CacheManager, revocations: Revocations
) -> JwtAccessTokens:
    return JwtAccessTokens(
        ring,
        verified=cache.cache(ACCESS_TOKENS, VerifiedToken),
        revocations=revocations,
        issuer=settings.issuer or public_url,
        audience=settings.audience,
        client_id=settings.client_id,
        ttl=settings.policy.access_token_ttl,
        clock=SystemClock(),
        new_id=uuid7,
        random=secrets.token_bytes,
    )


def _signing_keys(
    settings: AuthSettings,
    unit_of_work: Callable[[], AuthUnitOfWork],
    revocations: Revocations,
    operations: Operations,
) -> tuple[KeyRing, KeyService | None]:
    """Return the key ring, and the service that rotates the keys, or None if the keys are files."""
    max_age = settings.policy.key_ring_max_age.total_seconds()
    if settings.signing_keys_folder is not None:
        return KeyRing(FileKeys(settings.signing_keys_folder).load, max_age=max_age), None
    encrypted = EncryptedKeys(keys_by_version(settings.key_encryption_key), algorithm=settings.signing_algorithm)
    service = KeyService(
        unit_of_work,
        maker=encrypted,
        revocations=revocations,
        policy=settings.policy,
        clock=SystemClock(),
        operations=operations,
    )
    return KeyRing(StoredKeys(service.published, encrypted).load, max_age=max_age), service

"""`AuthSettings`, and `build_auth`, which builds auth's services on PostgreSQL.

Only apps fill the settings from the environment.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Gauge
from pydantic import SecretStr

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.caches import ACCESS_TOKENS, ROLES, USER_PROFILE
from tequipy_auth.domain.composition import Composition
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import BreachedPasswords, PersonalData, Revocations
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.roles import PERMISSIONS, Permission, RoleMap
from tequipy_auth.domain.services.keys import KeyService
from tequipy_auth.domain.value_objects import Profile
from tequipy_auth.infrastructure.addresses import ValidatedAddressParser
from tequipy_auth.infrastructure.breached_passwords import PwnedPasswords
from tequipy_auth.infrastructure.common_passwords import BundledCommonPasswords
from tequipy_auth.infrastructure.hashing import PASSWORDS_NICENESS, HashingPool
from tequipy_auth.infrastructure.key_ring import KeyRing
from tequipy_auth.infrastructure.keys import EncryptedKeys, FileKeys, StoredKeys
from tequipy_auth.infrastructure.metrics import HashingMetrics, PrometheusOperations
from tequipy_auth.infrastructure.models import SCHEMA
from tequipy_auth.infrastructure.passwords import BcryptPasswordHasher
from tequipy_auth.infrastructure.refresh_secrets import BcryptSecretHasher, SettingsSuccessorKeys
from tequipy_auth.infrastructure.repositories import SqlAuditLog, SqlAuthUnitOfWork
from tequipy_auth.infrastructure.revocations import SharedRevocations, StoredRevocations
from tequipy_auth.infrastructure.settings import AuthSettings, origin_of
from tequipy_auth.infrastructure.tokens import JwtAccessTokens, VerifiedToken
from tequipy_caching import CacheManager
from tequipy_platform import Clock, MailTemplates, SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.http import HttpClients
from tequipy_platform.mail import JinjaMailTemplates

__all__ = ["SCHEMA", "AuthSettings", "build_auth"]


def build_auth(
    settings: AuthSettings,
    *,
    environment: str,
    public_url: str,
    database: Database,
    cache: CacheManager,
    mail_templates: MailTemplates | None = None,
    http: HttpClients | None = None,
    permissions: Iterable[Permission] = (),
    personal_data: Iterable[PersonalData] = (),
    registry: CollectorRegistry | None = None,
) -> Auth:
    """Build auth on PostgreSQL; nothing is opened before its first use. The cache needs `tequipy_auth.CACHE_POLICIES`.

    `mail_templates` are those of `tequipy_auth` with a deployment's replacements (`build_mail_templates`).
    `permissions` are those of the other features of the app, and `personal_data` is their part of an export.

    Metrics in `registry`: `auth_operations_total{operation,status}` counts operations by their outcome,
    `auth_hashing_pending{pool}` is the number of hashes that wait or run, `auth_hashing_refused_total{pool,client}`
    counts refused and evicted hashes, `auth_hashing_wait_seconds{pool,client}` measures how long the others waited;
    `client` is `marked` or `unmarked`. `auth_breached_password_checks_total{outcome}` counts the passwords that were
    looked up at `settings.breached_passwords_url`, which needs `http`. In the environment `local`, cookies lack
    `Secure`.
    """
    policy, public_url, clock = settings.policy, public_url.rstrip("/"), SystemClock()
    unit_of_work = partial(SqlAuthUnitOfWork, database, clock, uuid7)
    operations = PrometheusOperations(registry)
    pools = _pools(settings, registry)
    if registry is not None:
        _measure(pools, registry)
    common_passwords = BundledCommonPasswords()
    revocations = _revocations(policy, cache, unit_of_work, clock)
    ring, keys = _signing_keys(settings, unit_of_work, revocations, operations)
    return Composition(
        unit_of_work=unit_of_work,
        policy=policy,
        public_url=public_url,
        registration_mode=settings.registration_mode,
        sign_in_notices=settings.sign_in_notices,
        clock=clock,
        new_id=uuid7,
        random=secrets.token_bytes,
        addresses=ValidatedAddressParser(),
        hasher=BcryptPasswordHasher(
            pools["passwords"],
            peppers=_keys(settings.peppers),
            cost=settings.bcrypt_cost,
            foreign_schemes=settings.foreign_password_schemes,
        ),
        common_passwords=common_passwords,
        breached_passwords=_breached_passwords(settings, http, registry),
        pseudonyms=Pseudonyms(settings.pseudonym_key.get_secret_value().encode()),
        secrets=BcryptSecretHasher(pools["refresh_secrets"], cost=settings.refresh_secret_cost),
        successor_keys=SettingsSuccessorKeys(_keys(settings.refresh_keys)),
        access_tokens=_access_tokens(settings, public_url, ring, cache, revocations),
        revocations=revocations,
        profiles=cache.cache(USER_PROFILE, Profile),
        permissions=(*PERMISSIONS, *permissions),
        roles=cache.cache(ROLES, RoleMap),
        templates=mail_templates or JinjaMailTemplates("tequipy_auth"),
        operations=operations,
        audit_log=SqlAuditLog(database),
        personal_data=tuple(personal_data),
        keys=keys,
        local=environment == "local",
        origins=frozenset({origin_of(public_url), *settings.allowed_origins}),
        resources=(*pools.values(), common_passwords, ring),
    ).auth()


def _breached_passwords(
    settings: AuthSettings, http: HttpClients | None, registry: CollectorRegistry | None
) -> BreachedPasswords | None:
    if settings.breached_passwords_url is None:
        return None
    if http is None:
        raise ValueError("breached_passwords_url needs HTTP clients: build_auth(…, http=build_http_clients(…))")
    return PwnedPasswords(http, url=settings.breached_passwords_url, registry=registry)


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


def _revocations(
    policy: AuthPolicy, cache: CacheManager, unit_of_work: Callable[[], AuthUnitOfWork], clock: Clock
) -> Revocations:
    stored = StoredRevocations(unit_of_work, ttl=policy.revocation_ttl, clock=clock)
    return SharedRevocations(cache.expiring_set("revocations", source=stored.load), ttl=policy.revocation_ttl)


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
    encrypted = EncryptedKeys(_keys(settings.key_encryption_key), algorithm=settings.signing_algorithm)
    service = KeyService(
        unit_of_work,
        maker=encrypted,
        revocations=revocations,
        policy=settings.policy,
        clock=SystemClock(),
        operations=operations,
    )
    return KeyRing(StoredKeys(service.published, encrypted).load, max_age=max_age), service


def _keys(by_version: Mapping[int, SecretStr]) -> dict[int, bytes]:
    return {version: secret.get_secret_value().encode() for version, secret in by_version.items()}


def _pools(settings: AuthSettings, registry: CollectorRegistry | None) -> Mapping[str, HashingPool]:
    metrics = HashingMetrics(registry)
    return {
        name: HashingPool(queue=settings.hashing_queue, niceness=niceness, name=name, metrics=metrics)
        for name, niceness in {"passwords": PASSWORDS_NICENESS, "refresh_secrets": 0}.items()
    }


def _measure(pools: Mapping[str, HashingPool], registry: CollectorRegistry) -> None:
    gauge = Gauge("auth_hashing_pending", "Hashes that wait or run.", ["pool"], registry=registry)
    for name, pool in pools.items():
        gauge.labels(name).set_function(partial(getattr, pool, "pending"))

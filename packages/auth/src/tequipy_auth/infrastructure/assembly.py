"""Builds auth's services on PostgreSQL and the cache."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.caches import ROLES, USER_PROFILE
from tequipy_auth.domain.composition import Composition
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AccessTokens, BreachedPasswords, PersonalData, Revocations
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.roles import PERMISSIONS, Permission, RoleMap
from tequipy_auth.domain.value_objects import AccessToken, Principal, Profile
from tequipy_auth.infrastructure.addresses import ValidatedAddressParser
from tequipy_auth.infrastructure.common_passwords import BundledCommonPasswords
from tequipy_auth.infrastructure.hashing import HashingPool, Priority
from tequipy_auth.infrastructure.metrics import HashingMetrics, PrometheusOperations
from tequipy_auth.infrastructure.passwords import BcryptPasswordHasher
from tequipy_auth.infrastructure.refresh_secrets import BcryptSecretHasher, SettingsSuccessorKeys
from tequipy_auth.infrastructure.repositories import SqlAuditLog, SqlAuthUnitOfWork
from tequipy_auth.infrastructure.revocations import SharedRevocations, StoredRevocations
from tequipy_auth.infrastructure.settings import AuthSettings, keys_by_version
from tequipy_caching import CacheManager
from tequipy_platform import JSON, Clock, MailTemplates, SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.http import HttpClients
from tequipy_platform.mail import JinjaMailTemplates
from tequipy_platform.settings import origin_of

_NO_TOKENS: Final = "auth was built with serves_requests=False"


def build_auth(
    settings: AuthSettings,
    *,
    environment: str,
    public_url: str,
    allowed_origins: Iterable[str] = (),
    origins_setting: str | None = None,
    database: Database,
    cache: CacheManager,
    mail_templates: MailTemplates | None = None,
    http: HttpClients | None = None,
    permissions: Iterable[Permission] = (),
    personal_data: Iterable[PersonalData] = (),
    serves_requests: bool = True,
    registry: CollectorRegistry | None = None,
) -> Auth:
    """Build auth on PostgreSQL; nothing is opened before its first use. The cache needs `tequipy_auth.CACHE_POLICIES`.

    Pages of `allowed_origins` may use the refresh cookie, beside those of `public_url`; refusals of others name
    `origins_setting`, the setting that lists them. `mail_templates` are those of `tequipy_auth` with a deployment's
    replacements (`build_mail_templates`). `permissions` are those of the other features of the app, and `personal_data`
    is their part of an export. `serves_requests=False`, for a worker, leaves out what only requests need: signing keys
    and access tokens with their libraries, and the list of common passwords.

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
    signing = None
    if serves_requests:
        from tequipy_auth.infrastructure.signing import build_signing  # noqa: PLC0415 -- imports cryptography

        signing = build_signing(
            settings,
            public_url=public_url,
            unit_of_work=unit_of_work,
            cache=cache,
            revocations=revocations,
            operations=operations,
        )
    return Composition(
        unit_of_work=unit_of_work,
        single_read=partial(SqlAuthUnitOfWork, database, clock, uuid7, autocommit=True),
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
            peppers=keys_by_version(settings.peppers),
            pepper_version=settings.pepper_version,
            cost=settings.bcrypt_cost,
            foreign_schemes=settings.foreign_password_schemes,
        ),
        common_passwords=common_passwords,
        breached_passwords=_breached_passwords(settings, http, registry),
        pseudonyms=Pseudonyms(settings.pseudonym_key.get_secret_value().encode()),
        secrets=BcryptSecretHasher(pools["refresh_secrets"], cost=settings.refresh_secret_cost),
        successor_keys=SettingsSuccessorKeys(
            keys_by_version(settings.refresh_keys), current=settings.refresh_key_version
        ),
        access_tokens=signing.access_tokens if signing else NoAccessTokens(),
        revocations=revocations,
        profiles=cache.cache(USER_PROFILE, Profile),
        permissions=(*PERMISSIONS, *permissions),
        roles=cache.cache(ROLES, RoleMap),
        templates=mail_templates or JinjaMailTemplates("tequipy_auth"),
        operations=operations,
        audit_log=SqlAuditLog(database),
        personal_data=tuple(personal_data),
        keys=signing.keys if signing else None,
        local=environment == "local",
        origins=frozenset({origin_of(public_url), *allowed_origins}),
        origins_setting=origins_setting,
        resources=(*pools.values(), *((common_passwords, signing.ring) if signing else ())),
    ).auth()


def _breached_passwords(
    settings: AuthSettings, http: HttpClients | None, registry: CollectorRegistry | None
) -> BreachedPasswords | None:
    if settings.breached_passwords_url is None:
        return None
    if http is None:
        raise ValueError("breached_passwords_url needs HTTP clients: build_auth(…, http=build_http_clients(…))")
    from tequipy_auth.infrastructure.breached_passwords import PwnedPasswords  # noqa: PLC0415 -- imports httpx

    return PwnedPasswords(http, url=settings.breached_passwords_url, registry=registry)


class NoAccessTokens(AccessTokens):
    """The access tokens of a process that serves no requests: each call is an error of the program."""

    async def issue(self, principal: Principal) -> AccessToken:  # noqa: ARG002 -- of the port
        """Raise `RuntimeError`."""
        raise RuntimeError(_NO_TOKENS)

    async def verify(self, token: str) -> Principal:  # noqa: ARG002 -- of the port
        """Raise `RuntimeError`."""
        raise RuntimeError(_NO_TOKENS)

    async def check(self) -> None:
        """Raise `RuntimeError`."""
        raise RuntimeError(_NO_TOKENS)

    async def jwks(self) -> dict[str, JSON]:
        """Raise `RuntimeError`."""
        raise RuntimeError(_NO_TOKENS)


def _revocations(
    policy: AuthPolicy, cache: CacheManager, unit_of_work: Callable[[], AuthUnitOfWork], clock: Clock
) -> Revocations:
    stored = StoredRevocations(unit_of_work, ttl=policy.revocation_ttl, clock=clock)
    return SharedRevocations(cache.expiring_set("revocations", source=stored.load), ttl=policy.revocation_ttl)


def _pools(settings: AuthSettings, registry: CollectorRegistry | None) -> Mapping[str, HashingPool]:
    metrics = HashingMetrics(registry)
    priorities: Mapping[str, Priority] = {"passwords": settings.hashing_priority, "refresh_secrets": "usual"}
    return {
        name: HashingPool(queue=settings.hashing_queue, priority=priority, name=name, metrics=metrics)
        for name, priority in priorities.items()
    }


def _measure(pools: Mapping[str, HashingPool], registry: CollectorRegistry) -> None:
    gauge = Gauge("auth_hashing_pending", "Hashes that wait or run.", ["pool"], registry=registry)
    for name, pool in pools.items():
        gauge.labels(name).set_function(partial(getattr, pool, "pending"))

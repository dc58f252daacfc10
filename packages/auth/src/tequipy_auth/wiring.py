"""The settings of auth, and `build_auth`, which builds its services on PostgreSQL.

Only apps fill the settings from the environment.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge
from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    DirectoryPath,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.composition import Composition
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.passwords import MAX_STORED_COST
from tequipy_auth.domain.policy import MIN_AUDIT_RETENTION, MIN_PASSWORD_LENGTH, AuthPolicy
from tequipy_auth.domain.ports import Revocations
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.roles import RoleMap
from tequipy_auth.domain.services.keys import KeyService
from tequipy_auth.domain.services.registration import REGISTRATION_TTL
from tequipy_auth.domain.value_objects import Profile
from tequipy_auth.infrastructure.addresses import ValidatedAddressParser
from tequipy_auth.infrastructure.audit import SqlAuditLog
from tequipy_auth.infrastructure.common_passwords import BundledCommonPasswords
from tequipy_auth.infrastructure.hashing import PASSWORDS_NICENESS, HashingPool
from tequipy_auth.infrastructure.key_ring import KeyRing
from tequipy_auth.infrastructure.keys import AlgorithmName, EncryptedKeys, FileKeys, StoredKeys
from tequipy_auth.infrastructure.metrics import HashingMetrics, PrometheusOperations
from tequipy_auth.infrastructure.passwords import BcryptPasswordHasher, ForeignScheme
from tequipy_auth.infrastructure.refresh_secrets import SECRET_COST, BcryptSecretHasher, SettingsSuccessorKeys
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.infrastructure.revocations import SharedRevocations, StoredRevocations
from tequipy_auth.infrastructure.tokens import JwtAccessTokens, VerifiedToken
from tequipy_caching import CacheManager
from tequipy_platform import Clock, SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.mail import JinjaMailTemplates
from tequipy_platform.settings import BUILT_IN

PRODUCTION_COST: Final = 10
"""The minimum bcrypt cost in production (OWASP Password Storage Cheat Sheet, section bcrypt)."""

PRODUCTION_GRACE: Final = 300
"""The maximum grace period in production, in seconds; a stolen refresh token can be used unnoticed for this long."""


def _check_origin(text: str) -> str:
    try:
        origin = _origin(text)
    except ValidationError:
        origin = ""
    if text != origin:
        raise PydanticCustomError("origin", "should be an origin as https://app.example.com")
    return text


def _origin(url: str) -> str:
    """Return the origin of a URL in the spelling of browsers (RFC 6454, section 6.2)."""
    parts = urlsplit(str(AnyHttpUrl(url)))  # lower case, punycode, without the scheme's default port
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


MAX_SECONDS: Final = 100 * 365 * 86400.0
"""The maximum duration in seconds: a century, so that the current time plus or minus it is a valid date."""

SECRET_LENGTH: Final = 32

Secret = Annotated[SecretStr, Field(min_length=SECRET_LENGTH)]
"""A random text, for instance the output of `openssl rand -base64 32`."""

Secrets = Annotated[dict[Annotated[int, Field(ge=1)], Secret], Field(min_length=1)]
"""Secrets by version: new data uses the highest version, stored data the version with which it was written."""


def _by_version(value: object) -> object:
    """Return secrets by version; a single secret becomes version 1."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a secret of digits only, which the environment source parses as a JSON number
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        raise PydanticCustomError("secrets", 'should be a secret, or secrets by version as JSON: {"1": "…", "2": "…"}')
    if len(value) < SECRET_LENGTH:
        raise PydanticCustomError("secret_length", f"should have at least {SECRET_LENGTH} characters")
    return {1: SecretStr(value)}


SecretOrSecrets = Annotated[Secrets, BeforeValidator(_by_version)]
"""Secrets by version, or a single secret, which is version 1."""


class AuthSettings(BaseModel):
    """Settings of auth: secrets, lifetimes, costs and limits; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    peppers: Secrets = {1: SecretStr(f"{BUILT_IN}pepper-of-the-passwords-0001")}
    """Keys of the HMAC over passwords. Removing a version makes the passwords that were stored with it unusable."""
    refresh_keys: Secrets = {1: SecretStr(f"{BUILT_IN}key-of-the-refresh-tokens-0001")}
    """Keys that derive successors of refresh tokens; an old version can be removed once its grace period is over."""
    key_encryption_key: SecretOrSecrets = {1: SecretStr(f"{BUILT_IN}key-of-the-signing-keys-0001")}
    """Encrypts the signing keys in the database; a single secret is version 1.

    To replace it, add the next version in every process, run `tequipy-api keys reseal`, and remove the old version.
    """
    pseudonym_key: Secret = SecretStr(f"{BUILT_IN}key-of-the-pseudonyms-0001")
    """Key for pseudonyms of addresses in lockout counters and the audit, and for signatures of device marks.

    After a change, earlier lockout counters and device marks have no effect.
    """
    registration_mode: Literal["private", "open"] = "private"
    """Whether registration reveals which addresses have an account.

    `private`: it does not, and the mailed link creates the account. `open`: registration creates an unverified account
    and refuses an address that has one.
    """
    password_min_length: int = Field(default=MIN_PASSWORD_LENGTH, ge=MIN_PASSWORD_LENGTH, le=64)
    password_max_length: int = Field(default=128, ge=64, le=1024)
    """Characters after normalisation (OWASP ASVS 5.0, V6.2.1 and V6.2.9).

    The minimum cannot be lowered, because the bundled list of common passwords contains nothing shorter.
    """
    audit_retention: float = Field(default=400 * 86400, ge=MIN_AUDIT_RETENTION.total_seconds(), le=MAX_SECONDS)
    """How long audit events are kept: 400 days by default, at least 7."""
    issuer: str | None = Field(default=None, min_length=1)
    """The `iss` claim of access tokens; None: the app's public URL."""
    audience: str = Field(default="tequipy", min_length=1)
    client_id: str = Field(default="tequipy", min_length=1)
    access_token_ttl: float = Field(default=900, ge=1, le=MAX_SECONDS)
    refresh_idle: float = Field(default=7 * 86400, ge=1, le=MAX_SECONDS)
    refresh_absolute: float = Field(default=30 * 86400, ge=1, le=MAX_SECONDS)
    refresh_grace_seconds: float = Field(default=60, ge=0, le=MAX_SECONDS)
    """The grace period: how long after its first use a refresh token returns its unused successor again."""
    sessions_per_user: int = Field(default=20, ge=1)
    """The maximum number of sessions per user; a further login ends the oldest one."""
    verify_email_ttl: float = Field(default=86400, ge=60, le=REGISTRATION_TTL.total_seconds())
    reset_password_ttl: float = Field(default=1800, ge=60, le=MAX_SECONDS)
    live_tokens_per_purpose: int = Field(default=3, ge=1)
    """The maximum number of valid links per purpose and subject; a further link invalidates the oldest."""
    mails_per_hour: int = Field(default=5, ge=1)
    """How many mails per hour can be sent to one address for one purpose (registration, another link, reset)."""
    fresh_for: float = Field(default=300, ge=1, le=MAX_SECONDS)
    """How long after authentication sensitive operations are allowed."""
    signing_algorithm: AlgorithmName = "ES256"
    """The algorithm of new signing keys."""
    signing_keys_folder: DirectoryPath | None = None
    """The folder with the signing keys, mounted by a secret manager; one is `active.pem`. None: keys are in the
    database."""
    jwks_max_age: float = Field(default=300, ge=1, le=MAX_SECONDS)
    """How long clients may cache the published keys; a key is published for this long before it signs."""
    foreign_password_schemes: tuple[ForeignScheme, ...] = ()
    """Hash schemes of another system whose accounts were imported, for instance `["bcrypt"]`.

    Their hashes have no pepper, so a person who can write to the database can create one and log in with it. Remove the
    schemes when the accounts have new hashes.
    """
    bcrypt_cost: int = Field(default=12, ge=4, le=MAX_STORED_COST)
    """The cost of new password hashes; other hashes are renewed at the next login.

    A failed check takes as long as the highest stored cost, so that a lower setting has no effect on failed checks
    until all hashes are renewed.
    """
    refresh_secret_cost: int = Field(default=SECRET_COST, ge=SECRET_COST, le=MAX_STORED_COST)
    """The bcrypt cost of refresh token secrets; the lowest cost is sufficient, because the secrets are random."""
    hashing_queue: int = Field(default=64, ge=0)
    """How many hashes may wait for a thread; a quarter is reserved for clients with a valid device mark.

    When the queue is full, the newest hash of the network that holds the most places is refused with status 503.
    """
    allowed_origins: tuple[Annotated[str, AfterValidator(_check_origin)], ...] = ()
    """Origins whose pages may use the refresh cookie, in addition to that of the public URL."""

    def random_secrets(self) -> Mapping[str, Iterable[SecretStr]]:
        """Return the secrets by setting."""
        return {
            "peppers": self.peppers.values(),
            "refresh_keys": self.refresh_keys.values(),
            "key_encryption_key": self.key_encryption_key.values(),
            "pseudonym_key": [self.pseudonym_key],
        }

    def production_faults(self) -> Iterator[tuple[str, str]]:
        """Return each setting that is not allowed in production, with the reason."""
        if self.bcrypt_cost < PRODUCTION_COST:
            yield "bcrypt_cost", f"should be at least {PRODUCTION_COST} in production"
        if self.refresh_grace_seconds > PRODUCTION_GRACE:
            yield "refresh_grace_seconds", f"should be at most {PRODUCTION_GRACE} in production"
        if any(not origin.startswith("https://") for origin in self.allowed_origins):
            yield "allowed_origins", "should be https:// origins alone in production"


def build_auth(
    settings: AuthSettings,
    *,
    environment: str,
    public_url: str,
    database: Database,
    cache: CacheManager,
    registry: CollectorRegistry | None = None,
) -> Auth:
    """Build auth on PostgreSQL; nothing is opened before its first use.

    Metrics in `registry`: `auth_operations_total{operation,status}` counts operations by their outcome,
    `auth_hashing_pending{pool}` is the number of hashes that wait or run, `auth_hashing_refused_total{pool,client}`
    counts refused and evicted hashes, `auth_hashing_wait_seconds{pool,client}` measures how long the others waited;
    `client` is `marked` or `unmarked`. In the environment `local`, cookies lack `Secure`.
    """
    policy, clock = _policy(settings, public_url.rstrip("/")), SystemClock()
    unit_of_work = partial(SqlAuthUnitOfWork, database, clock, uuid7)
    operations = PrometheusOperations(registry)
    pools = _pools(settings, registry)
    if registry is not None:
        _measure(pools, registry)
    common_passwords = BundledCommonPasswords()
    revocations = _revocations(policy, cache, unit_of_work, clock)
    ring, keys = _signing_keys(settings, policy, unit_of_work, revocations, operations)
    return Composition(
        unit_of_work=unit_of_work,
        policy=policy,
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
        pseudonyms=Pseudonyms(settings.pseudonym_key.get_secret_value().encode()),
        secrets=BcryptSecretHasher(pools["refresh_secrets"], cost=settings.refresh_secret_cost),
        successor_keys=SettingsSuccessorKeys(_keys(settings.refresh_keys)),
        access_tokens=_access_tokens(settings, policy, ring, cache, revocations),
        revocations=revocations,
        profiles=cache.cache("user_profile", Profile),
        config=cache.cache("config", RoleMap),
        templates=JinjaMailTemplates("tequipy_auth"),
        operations=operations,
        audit_log=SqlAuditLog(database),
        keys=keys,
        local=environment == "local",
        origins=frozenset({_origin(policy.public_url), *settings.allowed_origins}),
        resources=(*pools.values(), common_passwords, ring),
    ).auth()


def _access_tokens(
    settings: AuthSettings, policy: AuthPolicy, ring: KeyRing, cache: CacheManager, revocations: Revocations
) -> JwtAccessTokens:
    return JwtAccessTokens(
        ring,
        verified=cache.cache("access_tokens", VerifiedToken),
        revocations=revocations,
        issuer=settings.issuer or policy.public_url,
        audience=settings.audience,
        client_id=settings.client_id,
        ttl=policy.access_token_ttl,
        clock=SystemClock(),
        new_id=uuid7,
        random=secrets.token_bytes,
    )


def _policy(settings: AuthSettings, public_url: str) -> AuthPolicy:
    return AuthPolicy(
        public_url=public_url,
        access_token_ttl=timedelta(seconds=settings.access_token_ttl),
        jwks_max_age=timedelta(seconds=settings.jwks_max_age),
        refresh_idle=timedelta(seconds=settings.refresh_idle),
        refresh_absolute=timedelta(seconds=settings.refresh_absolute),
        refresh_grace=timedelta(seconds=settings.refresh_grace_seconds),
        sessions_per_user=settings.sessions_per_user,
        verify_email_ttl=timedelta(seconds=settings.verify_email_ttl),
        reset_password_ttl=timedelta(seconds=settings.reset_password_ttl),
        live_tokens_per_purpose=settings.live_tokens_per_purpose,
        mails_per_hour=settings.mails_per_hour,
        fresh_for=timedelta(seconds=settings.fresh_for),
        open_registration=settings.registration_mode == "open",
        password_min_length=settings.password_min_length,
        password_max_length=settings.password_max_length,
        audit_retention=timedelta(seconds=settings.audit_retention),
    )


def _revocations(
    policy: AuthPolicy, cache: CacheManager, unit_of_work: Callable[[], AuthUnitOfWork], clock: Clock
) -> Revocations:
    stored = StoredRevocations(unit_of_work, ttl=policy.revocation_ttl, clock=clock)
    return SharedRevocations(cache.expiring_set("revocations", source=stored.load), ttl=policy.revocation_ttl)


def _signing_keys(
    settings: AuthSettings,
    policy: AuthPolicy,
    unit_of_work: Callable[[], AuthUnitOfWork],
    revocations: Revocations,
    operations: Operations,
) -> tuple[KeyRing, KeyService | None]:
    """Return the key ring, and the service that rotates the keys, or None if the keys are files."""
    max_age = policy.key_ring_max_age.total_seconds()
    if settings.signing_keys_folder is not None:
        return KeyRing(FileKeys(settings.signing_keys_folder).load, max_age=max_age), None
    encrypted = EncryptedKeys(_keys(settings.key_encryption_key), algorithm=settings.signing_algorithm)
    service = KeyService(
        unit_of_work,
        maker=encrypted,
        revocations=revocations,
        policy=policy,
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

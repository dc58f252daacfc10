"""Settings of auth."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated, ClassVar, Final, Literal

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
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from tequipy_auth.domain.passwords import MAX_STORED_COST
from tequipy_auth.domain.policy import AuthPolicy, RegistrationMode
from tequipy_platform.settings import BUILT_IN, read_seconds

SCHEMA: Final = "auth"
"""The default name of the schema; `DatabaseSettings.schemas` can rename it."""

AlgorithmName = Literal["ES256", "RS256", "EdDSA"]
"""ECDSA on P-256 (RFC 7518, section 3.4), RSASSA-PKCS1-v1_5 (3.3) and Ed25519 (RFC 8037, section 3.1)."""

ForeignScheme = Literal["bcrypt"]
"""Schemes of other systems; their hashes are only accepted when the settings name the scheme."""

SECRET_COST: Final = 4
"""The lowest cost of bcrypt; a higher one adds nothing, because the secret has 256 random bits."""

PRODUCTION_COST: Final = 10
"""The minimum bcrypt cost in production (OWASP Password Storage Cheat Sheet, section bcrypt)."""

PRODUCTION_GRACE: Final = timedelta(minutes=5)
"""The maximum grace period in production; a stolen refresh token can be used unnoticed for this long."""


def _check_api_url(text: str) -> str:
    """Return the URL of an API without a slash at its end; plain HTTP is accepted for this machine alone."""
    try:
        url = AnyHttpUrl(text)
    except ValidationError:
        url = None
    if (
        url is None
        or (url.scheme == "http" and not _is_loopback(url.host or ""))
        or url.username is not None
        or url.password is not None
        or url.query is not None
        or url.fragment is not None
    ):
        raise PydanticCustomError("api_url", "should be a URL as https://api.pwnedpasswords.com, without credentials")
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


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
    """Settings of auth: secrets, costs, and the lifetimes and limits of `policy`, whose times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    production_rules: ClassVar[Mapping[str, str]] = {
        "bcrypt_cost": f"should be at least {PRODUCTION_COST} in production",
        "policy.refresh_grace": f"should be at most {PRODUCTION_GRACE.total_seconds():.0f} in production",
    }

    peppers: Secrets = {1: SecretStr(f"{BUILT_IN}pepper-of-the-passwords-0001")}
    """Keys of the HMAC over passwords, by version (`{"1": "…"}`). Removing a version makes the passwords that were
    stored with it unusable."""
    pepper_version: int | None = Field(default=None, ge=1)
    """The number of the version in `PEPPERS` for new hashes; None: the highest one. Set it to the old version until
    every process has the new one: a process that lacks it takes the password for a wrong one."""
    refresh_keys: Secrets = {1: SecretStr(f"{BUILT_IN}key-of-the-refresh-tokens-0001")}
    """Keys that derive successors of refresh tokens, by version (`{"1": "…"}`); an old version can be removed once its
    grace period is over."""
    refresh_key_version: int | None = Field(default=None, ge=1)
    """The number of the version in `REFRESH_KEYS` that derives new successors; None: the highest one. Set it to the old
    version until every process has the new one: a process that lacks it refuses a refresh that a client repeats."""
    key_encryption_key: SecretOrSecrets = {1: SecretStr(f"{BUILT_IN}key-of-the-signing-keys-0001")}
    """Encrypts the signing keys in the database; secrets by version (`{"1": "…"}`), or a single one, which is version
    1.

    To replace it, add the next version in every process, re-encrypt the signing keys with it, and remove the old one.
    """
    pseudonym_key: Secret = SecretStr(f"{BUILT_IN}key-of-the-pseudonyms-0001")
    """Key for pseudonyms of addresses in lockout counters and the audit, and for signatures of device marks.

    After a change, earlier lockout counters and device marks have no effect.
    """
    registration_mode: RegistrationMode = "private"
    """Who can get an account by registering, and whether that reveals which addresses have one.

    `private`: everybody, it does not, and the mailed link creates the account. `open`: everybody, registration creates
    an unverified account and refuses an address that has one. `invite`: nobody, accounts come from the invitations of
    administrators alone; pending registrations of before can still be verified.
    """
    sign_in_notices: bool = True
    """Whether owners are told by mail of logins from new devices and address ranges, with a link that ends the
    session."""
    policy: Annotated[AuthPolicy, BeforeValidator(read_seconds(AuthPolicy))] = AuthPolicy()
    """Lifetimes in seconds, and limits."""
    issuer: str | None = Field(default=None, min_length=1)
    """The `iss` claim of access tokens; None: the app's public URL."""
    audience: str = Field(default="tequipy", min_length=1)
    """The `aud` claim of access tokens (RFC 9068), which identifies the API that accepts them."""
    client_id: str = Field(default="tequipy", min_length=1)
    """The `client_id` claim of access tokens (RFC 9068)."""
    signing_algorithm: AlgorithmName = "ES256"
    """The algorithm of new signing keys."""
    signing_keys_folder: DirectoryPath | None = None
    """The folder with the signing keys, mounted by a secret manager; one is `active.pem`. None: keys are in the
    database."""
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
    hashing_priority: Literal["low", "idle"] = "low"
    """The priority of the threads that hash passwords. `idle` disturbs other requests less, and is for a process in a
    container, as in the images: beside busy processes of the same control group such threads get next to no time."""
    breached_passwords_url: Annotated[str, AfterValidator(_check_api_url)] | None = None
    """The API that new passwords are looked up in: `https://api.pwnedpasswords.com`, or a mirror with `/range/`.

    None: passwords that are known from data breaches are accepted, and no service is asked.
    """

    @field_validator("pepper_version", "refresh_key_version")
    @classmethod
    def _check_version(cls, version: int | None, info: ValidationInfo) -> int | None:
        name = {"pepper_version": "peppers", "refresh_key_version": "refresh_keys"}[info.field_name or ""]
        known = info.data.get(name)  # None if the secrets have a fault of their own
        if version is not None and known is not None and version not in known:
            raise PydanticCustomError("version", f"should be one of the versions in {name.upper()}")
        return version

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
            yield "bcrypt_cost", self.production_rules["bcrypt_cost"]
        if self.policy.refresh_grace > PRODUCTION_GRACE:
            yield "policy.refresh_grace", self.production_rules["policy.refresh_grace"]


def keys_by_version(by_version: Mapping[int, SecretStr]) -> dict[int, bytes]:
    """Return the secrets of a setting as bytes."""
    return {version: secret.get_secret_value().encode() for version, secret in by_version.items()}

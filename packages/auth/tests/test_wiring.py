"""The settings of auth, and `build_auth`."""

from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError

from tequipy_auth import Auth, AuthPolicy
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.settings import BUILT_IN, HoldsSecrets, is_guessable

OWN = "Ut6Zr0mJ1c8QxV5bN3kY7wHs2LdPfGaE"
OWN_SECRETS = {"peppers": {2: OWN}, "refresh_keys": {1: OWN}, "key_encryption_key": OWN, "pseudonym_key": OWN}


def make_auth(
    settings: AuthSettings | None = None,
    *,
    environment: str = "production",
    public_url: str = "https://app.example.com",
    registry: CollectorRegistry | None = None,
) -> Auth:
    """Build auth with a database that cannot be reached."""
    return build_auth(
        settings or AuthSettings(),
        environment=environment,
        public_url=public_url,
        database=build_database(DatabaseSettings(url=SecretStr("postgresql+asyncpg://127.0.0.1:1/none"))),
        cache=MemoryCacheManager(),
        registry=registry,
    )


def test_every_secret_is_checked() -> None:
    """Each setting with a secret is in `random_secrets`, and the defaults are the built-in ones."""
    settings = AuthSettings()
    assert isinstance(settings, HoldsSecrets)
    held = {
        name: [secret.get_secret_value() for secret in values] for name, values in settings.random_secrets().items()
    }
    masked = {name for name, value in settings.model_dump(mode="json").items() if "**********" in str(value)}
    assert held.keys() == masked
    secrets = [secret for values in held.values() for secret in values]
    assert all(secret.startswith(BUILT_IN) and not is_guessable(secret) for secret in secrets)
    own = AuthSettings.model_validate(OWN_SECRETS | {"refresh_keys": {1: f"{BUILT_IN}{OWN}", 2: OWN}})
    assert [len(list(secrets)) for secrets in own.random_secrets().values()] == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, []),
        ({"bcrypt_cost": 9}, ["bcrypt_cost"]),
        ({"bcrypt_cost": 10}, []),
        ({"refresh_grace_seconds": 300.5}, ["refresh_grace_seconds"]),
        ({"refresh_grace_seconds": 300}, []),
        ({"allowed_origins": ["https://a.example.com", "http://b.example.com"]}, ["allowed_origins"]),
    ],
    ids=str,
)
def test_production_refuses_insecure_settings(changes: dict[str, Any], refused: list[str]) -> None:
    """Production refuses a low cost, a long grace period and origins without TLS."""
    assert [field for field, _ in AuthSettings.model_validate(changes).production_faults()] == refused


@pytest.mark.parametrize(
    "wrong",
    [
        {"peppers": {}},
        {"peppers": {0: OWN}},
        {"peppers": {1: "a short secret"}},
        {"refresh_keys": {"one": OWN}},
        {"key_encryption_key": "a short secret"},
        {"key_encryption_key": '{"1": "a short secret, cut off in its JSON'},
        {"key_encryption_key": {1: "a short secret"}},
        {"key_encryption_key": {}},
        {"key_encryption_key": True},
        {"foreign_password_schemes": ["md5"]},
        {"pseudonym_key": "a short secret"},
        {"registration_mode": "secret"},
        {"bcrypt_cost": 3},
        {"bcrypt_cost": 16},
        {"allowed_origins": ["*"]},
        {"allowed_origins": ["https://app.example.com/"]},
        {"allowed_origins": ["app.example.com"]},
        {"issuer": ""},
        {"refresh_grace_seconds": -1},
        {"password_min_length": 11},
        {"audit_retention": 7 * 86400 - 1},
        {"password_min_length": 65},
        {"password_max_length": 63},
        {"verify_email_ttl": 3 * 86400},
        {"refresh_secret_cost": 3},
        {"unknown": 1},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_without_showing_them(wrong: dict[str, Any]) -> None:
    """A wrong value is reported with its setting's name and without secrets."""
    with pytest.raises(ValidationError, match=next(iter(wrong))) as refusal:
        AuthSettings.model_validate(wrong)
    assert "a short secret" not in str(refusal.value)


@pytest.mark.parametrize("forever", ["inf", 10**11], ids=str)
def test_durations_are_limited(forever: object) -> None:
    """Every setting in seconds refuses values that would exceed the range of dates."""
    times = [name for name, field in AuthSettings.model_fields.items() if field.annotation is float]
    with pytest.raises(ValidationError) as refusal:
        AuthSettings.model_validate(dict.fromkeys(times, forever))
    assert [error["loc"] for error in refusal.value.errors()] == [(name,) for name in times]


def test_every_policy_value_is_a_setting() -> None:
    """Each value of the policy comes from a setting, whose default is that of the policy."""
    default = AuthPolicy(public_url="https://app.example.com")
    assert make_auth().policy == default
    changed = make_auth(
        AuthSettings(
            access_token_ttl=61,
            jwks_max_age=61,
            refresh_idle=61,
            refresh_absolute=61,
            refresh_grace_seconds=61,
            sessions_per_user=5,
            verify_email_ttl=61,
            reset_password_ttl=61,
            live_tokens_per_purpose=1,
            mails_per_hour=1,
            fresh_for=61,
            registration_mode="open",
            password_min_length=13,
            password_max_length=64,
            audit_retention=61 * 86400,
        )
    ).policy
    kept = {field.name for field in fields(AuthPolicy) if getattr(changed, field.name) == getattr(default, field.name)}
    assert kept == {"public_url"}


@pytest.mark.parametrize("wrong", [{"password_min_length": 11}, {"audit_retention": timedelta(days=6)}], ids=str)
def test_a_policy_enforces_its_minimum_values(wrong: dict[str, Any]) -> None:
    """A policy that is created without the settings refuses values below the minimum."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AuthPolicy(public_url="https://app.example.com", **wrong)


@pytest.mark.parametrize(
    ("given", "versions"),
    [
        (OWN, {1: OWN}),
        (SecretStr(OWN), {1: OWN}),
        (int("1234567890" * 4), {1: "1234567890" * 4}),  # the value that the environment source returns for digits
        ({1: OWN, 3: OWN[::-1]}, {1: OWN, 3: OWN[::-1]}),
        ({"2": OWN}, {2: OWN}),
    ],
)
def test_the_key_encryption_key_has_versions(given: object, versions: dict[int, str]) -> None:
    """A single secret is version 1; several have explicit versions."""
    held = AuthSettings.model_validate({"key_encryption_key": given}).key_encryption_key
    assert {version: secret.get_secret_value() for version, secret in held.items()} == versions


def test_secrets_are_not_shown() -> None:
    """Neither repr nor JSON of the settings contains a secret."""
    settings = AuthSettings.model_validate(OWN_SECRETS)
    assert OWN not in repr(settings)
    assert OWN not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("public_url", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://App.example.com:443/base/", "https://app.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ],
)
def test_the_public_origin_may_use_the_cookie(public_url: str, origin: str) -> None:
    """The allowed origins are that of the public URL in the spelling of browsers, and the configured ones."""
    settings = AuthSettings(allowed_origins=("https://friend.example.net",))
    assert make_auth(settings, public_url=public_url).origins == {origin, "https://friend.example.net"}


def test_only_a_developers_machine_is_local() -> None:
    """Cookies lack `Secure` only in the environment `local`."""
    assert make_auth(environment="local").local
    assert not any(make_auth(environment=name).local for name in ("test", "staging", "production"))


async def test_auth_opens_and_closes_without_a_database() -> None:
    """Auth starts while the database is unavailable, because nothing is opened before its first use."""
    auth = make_auth()
    for _ in range(2):
        async with auth:
            pass


def test_waiting_hashes_are_measured() -> None:
    """The gauge counts the hashes of each pool, and builds without a registry do not conflict."""
    registry = CollectorRegistry()
    make_auth(registry=registry)
    make_auth()
    for pool in ("passwords", "refresh_secrets"):
        assert registry.get_sample_value("auth_hashing_pending", {"pool": pool}) == 0

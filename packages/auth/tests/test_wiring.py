"""The settings of auth, and `build_auth`."""

from collections.abc import Sequence
from dataclasses import Field, fields
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError

from tequipy_auth import CACHE_POLICIES, Auth, AuthPolicy
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.settings.secret_checks import BUILT_IN, HoldsSecrets, is_guessable

OWN = "Ut6Zr0mJ1c8QxV5bN3kY7wHs2LdPfGaE"
OWN_SECRETS = {"peppers": {2: OWN}, "refresh_keys": {1: OWN}, "key_encryption_key": OWN, "pseudonym_key": OWN}


def make_auth(
    settings: AuthSettings | None = None,
    *,
    environment: str = "production",
    public_url: str = "https://app.example.com",
    allowed_origins: Sequence[str] = (),
    registry: CollectorRegistry | None = None,
) -> Auth:
    """Build auth with a database that cannot be reached."""
    return build_auth(
        settings or AuthSettings(),
        environment=environment,
        public_url=public_url,
        allowed_origins=allowed_origins,
        database=build_database(DatabaseSettings(url=SecretStr("postgresql+asyncpg://127.0.0.1:1/none"))),
        cache=MemoryCacheManager(CACHE_POLICIES),
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
        ({"policy": {"refresh_grace": 300.5}}, ["policy.refresh_grace"]),
        ({"policy": {"refresh_grace": 300}}, []),
    ],
    ids=str,
)
def test_production_refuses_insecure_settings(changes: dict[str, Any], refused: list[str]) -> None:
    """Production refuses a low cost and a long grace period."""
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
        {"breached_passwords_url": "http://mirror.example.com"},
        {"breached_passwords_url": "https://ada:a short secret@mirror.example.com"},
        {"breached_passwords_url": "https://mirror.example.com?key=a short secret"},
        {"breached_passwords_url": "https://mirror.example.com#"},
        {"breached_passwords_url": "api.pwnedpasswords.com"},
        {"issuer": ""},
        {"policy": {"refresh_grace": -1}},
        {"policy": {"refresh_grace": "a short secret"}},
        {"policy": {"password_min_length": 11}},
        {"policy": {"audit_retention": 7 * 86400 - 1}},
        {"policy": {"password_min_length": 65}},
        {"policy": {"password_max_length": 63}},
        {"policy": {"verify_email_ttl": 3 * 86400}},
        {"policy": {"unknown": "a short secret"}},
        {"policy": "a short secret"},
        {"refresh_secret_cost": 3},
        {"unknown": 1},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_without_showing_them(wrong: dict[str, Any]) -> None:
    """A wrong value is reported with its setting's name and without secrets."""
    ((name, value),) = wrong.items()
    name = f"{name}.{next(iter(value))}" if name == "policy" and isinstance(value, dict) else name
    with pytest.raises(ValidationError, match=name) as refusal:
        AuthSettings.model_validate(wrong)
    assert "a short secret" not in str(refusal.value)


@pytest.mark.parametrize("forever", ["inf", 10**11, "1e11", "1e300"], ids=str)
def test_durations_are_limited(forever: object) -> None:
    """Every duration of the policy refuses values that would exceed the range of dates."""
    times = [each.name for each in fields(AuthPolicy) if each.type is timedelta]
    with pytest.raises(ValidationError) as refusal:
        AuthSettings.model_validate({"policy": dict.fromkeys(times, forever)})
    assert [error["loc"] for error in refusal.value.errors()] == [("policy", name) for name in times]


@pytest.mark.parametrize(
    ("given", "seconds"), [("61", 61), (61, 61), (61.5, 61.5), ("61.5", 61.5), ("PT1M", 60), ("1e3", 1000)], ids=str
)
def test_a_duration_is_a_number_of_seconds(given: object, seconds: float) -> None:
    """A duration is given in seconds, as a number or a text, or in ISO 8601."""
    assert AuthSettings.model_validate({"policy": {"fresh_for": given}}).policy.fresh_for.total_seconds() == seconds


@given(st.sampled_from(fields(AuthPolicy)), st.sampled_from(["ge", "le"]), st.sampled_from([-1, 0, 1]))
def test_settings_and_policy_have_the_same_bounds(each: Field[Any], bound: str, beyond: int) -> None:
    """A value at, just below or just above a bound is accepted, or refused, by the settings and by the policy alike."""
    if bound not in each.metadata:
        return
    limit = each.metadata[bound]
    value = limit + beyond * (timedelta(seconds=1) if isinstance(limit, timedelta) else 1)
    within = beyond >= 0 if bound == "ge" else beyond <= 0
    for build in (
        lambda: AuthPolicy(**{each.name: value}),
        lambda: AuthSettings.model_validate({"policy": {each.name: value}}),
    ):
        if within:
            build()
        else:
            with pytest.raises(ValueError, match=each.name):
                build()


def test_the_policy_is_a_section_of_the_settings() -> None:
    """Auth has the very policy of its settings, whose default is the default policy."""
    assert make_auth().policy == AuthPolicy()
    settings = AuthSettings.model_validate({"policy": {"refresh_idle": 61, "sessions_per_user": 5}})
    auth = make_auth(settings)
    assert auth.policy is settings.policy
    assert auth.policy == AuthPolicy(refresh_idle=timedelta(seconds=61), sessions_per_user=5)


@pytest.mark.parametrize("wrong", [{"password_min_length": 11}, {"audit_retention": timedelta(days=6)}], ids=str)
def test_a_policy_enforces_its_minimum_values(wrong: dict[str, Any]) -> None:
    """A policy that is created without the settings refuses values below the minimum."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AuthPolicy(**wrong)


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


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://api.pwnedpasswords.com/", "https://api.pwnedpasswords.com"),
        ("https://mirror.example.com:8443/hashes", "https://mirror.example.com:8443/hashes"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
    ],
)
def test_breached_passwords_are_looked_up_over_tls_or_on_this_machine(given: str, url: str) -> None:
    """The URL of the API has no slash at its end; plain HTTP is for a service on the same machine."""
    assert AuthSettings.model_validate({"breached_passwords_url": given}).breached_passwords_url == url


def test_breached_passwords_need_http_clients() -> None:
    """A host that sets the URL and passes no clients learns so when it builds auth; without the URL none are needed."""
    with pytest.raises(ValueError, match="build_http_clients"):
        make_auth(AuthSettings(breached_passwords_url="https://api.pwnedpasswords.com"))
    assert AuthSettings().breached_passwords_url is None


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
    auth = make_auth(public_url=public_url, allowed_origins=["https://friend.example.net"])
    assert auth.origins == {origin, "https://friend.example.net"}


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

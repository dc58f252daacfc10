"""The API's settings as a whole: app-wide values, and values that production refuses."""

from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_platform.settings import AppSettings
from tequipy_platform.settings.reference import settings_of

OWN = "Ut6Zr0mJ1c8QxV5bN3kY7wHs2LdPfGaE"
SAFE: dict[str, dict[str, Any]] = {
    "auth": {
        "peppers": {1: OWN},
        "refresh_keys": {1: OWN},
        "key_encryption_key": OWN,
        "pseudonym_key": OWN,
        "bcrypt_cost": 12,
    },
    "observability": {"metrics_token": OWN},
}

S3 = {"url": "s3://bucket", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": OWN}
UNVERIFIED = "rediss://localhost/0?ssl_cert_reqs=none"
CASES: list[tuple[dict[str, Any], list[tuple[str, ...]]]] = [
    ({}, []),
    ({"auth": {"peppers": {1: "local-only-" + OWN}}}, [("auth", "peppers")]),
    ({"observability": {"metrics_token": None}}, [("observability", "metrics_token")]),
    ({"observability": {"metrics_token": None, "metrics_port": 9000}}, []),
    ({"observability": {"log_level": "DEBUG"}}, [("observability", "log_level")]),
    ({"storage": {"url": "memory://"}}, [("storage", "url")]),
    ({"storage": {**S3, "endpoint": "http://s3.example.com"}}, [("storage", "endpoint")]),
    ({"storage": {**S3, "endpoint": "https://s3.example.com"}}, []),
    ({"storage": S3}, []),
    ({"allowed_origins": ["*"]}, [("allowed_origins",)]),
    ({"allowed_origins": ["http://a.example.com"]}, [("allowed_origins",)]),
    ({"allowed_origins": ["https://a.example.com"]}, []),
    ({"public_url": "http://app.example.com"}, [("public_url",)]),
    ({"auth": {"bcrypt_cost": 9}}, [("auth", "bcrypt_cost")]),
    ({"auth": {"policy": {"refresh_grace": 301}}}, [("auth", "policy", "refresh_grace")]),
    ({"auth": {"pseudonym_key": "s" * 32}}, [("auth", "pseudonym_key")]),
    ({"auth": {"peppers": {1: OWN, 2: "changeme-" * 4}}}, [("auth", "peppers")]),
    ({"observability": {"metrics_token": OWN[:15]}}, [("observability", "metrics_token")]),
    ({"observability": {"metrics_token": OWN[:16]}}, []),
    ({"observability": {"metrics_token": "s" * 32}}, [("observability", "metrics_token")]),
    ({"trusted_proxies": ["0.0.0.0/0"]}, [("trusted_proxies",)]),
    ({"trusted_proxies": ["::/0"]}, [("trusted_proxies",)]),
    ({"trusted_proxies": ["0.0.0.0/1", "128.0.0.0/1"]}, [("trusted_proxies",)]),
    ({"trusted_proxies": [f"{first}.0.0.0/8" for first in range(256)]}, [("trusted_proxies",)]),
    ({"trusted_proxies": ["2000::/3"]}, [("trusted_proxies",)]),
    ({"trusted_proxies": ["::ffff:0:0/96"]}, [("trusted_proxies",)]),
    ({"trusted_proxies": ["10.0.0.0/8", "fc00::/7", "203.0.113.0/24", "2001:db8::/32", "::1"]}, []),
    ({"auth": {"refresh_keys": {1: "s" * 32}}}, [("auth", "refresh_keys")]),
    ({"auth": {"key_encryption_key": "s" * 32}}, [("auth", "key_encryption_key")]),
    ({"cache": {"url": UNVERIFIED}}, [("cache", "url")]),
    ({"limiter": {"url": UNVERIFIED}}, [("limiter", "url")]),
    ({"observability": {"otlp_endpoint": "http://a", "otlp_headers": "a=b"}}, [("observability", "otlp_endpoint")]),
]
"""Changes of safe settings, and the settings that production refuses then."""


def names(model: type[BaseModel]) -> set[str]:
    """Return the names of a section's fields, including nested sections."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= names(field.annotation)
    return found


def refused_by(environment: str, settings: ApiSettings, **changes: Any) -> list[tuple[str, ...]]:
    """Return the settings that an environment refuses, for safe settings with these changes."""
    values = settings.model_dump(exclude={"auth", "observability"}) | {"environment": environment}
    for name, value in (SAFE | changes).items():
        values[name] = SAFE.get(name, {}) | value if isinstance(value, dict) else value
    try:
        ApiSettings.model_validate(values)
    except ValidationError as error:
        return [tuple(str(step) for step in fault["loc"]) for fault in error.errors()]
    return []


def test_no_section_repeats_an_app_wide_setting() -> None:
    """Name, version, environment and public URL have one variable each, so they cannot differ."""
    sections = [
        field.annotation
        for field in ApiSettings.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ]
    assert len(sections) > 5
    assert not set(AppSettings.model_fields) & set().union(*(names(section) for section in sections))


@pytest.mark.parametrize(("changes", "refused"), CASES, ids=str)
def test_production_refuses_unsafe_values(
    settings: ApiSettings, changes: dict[str, Any], refused: list[tuple[str, ...]]
) -> None:
    """Each unsafe value is refused with its name, and the safe values are accepted."""
    assert refused_by("production", settings, **changes) == refused


def test_the_reference_has_the_rules_of_production() -> None:
    """A setting has a rule exactly if production refuses a value of it, in one of the cases above."""
    documented = {setting.path for setting in settings_of(ApiSettings) if setting.rules}
    assert documented == {path for _, refused in CASES for path in refused}


@pytest.mark.parametrize(("name", "secrets"), [("pepper_version", "peppers"), ("refresh_key_version", "refresh_keys")])
def test_a_version_in_use_has_to_be_set(settings: ApiSettings, name: str, secrets: str) -> None:
    """A version for new hashes or successors that has no secret is a fault of that setting, before any is made."""
    both = {secrets: {1: OWN, 2: OWN[::-1]}}
    for version, faults in ((1, []), (2, []), (3, [("auth", name)]), (0, [("auth", name)])):
        assert refused_by("test", settings, auth=both | {name: version}) == faults


@pytest.mark.parametrize("docs", [True, False])
async def test_the_docs_can_be_switched_off(settings: ApiSettings, docs: bool) -> None:
    """Without docs the pages and the document are 404, like any unknown path; the contract itself is unchanged."""
    app = create_app(settings.model_copy(update={"docs": docs}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answers = [await client.get(path) for path in ("/docs", "/redoc", "/openapi.json", "/docs/start.js")]
    assert {answer.status_code for answer in answers} == ({200} if docs else {404})
    assert app.openapi() == create_app(settings).openapi()


@pytest.mark.parametrize("name", ["peppers", "refresh_keys", "key_encryption_key", "pseudonym_key"])
def test_staging_refuses_built_in_secrets(settings: ApiSettings, name: str) -> None:
    """Staging refuses built-in secrets, which are public, and accepts what only production refuses."""
    built_in = "local-only-" + OWN
    secret = {1: built_in} if name in {"peppers", "refresh_keys"} else built_in
    assert refused_by("staging", settings, auth={name: secret}) == [("auth", name)]
    assert refused_by("staging", settings, auth={"bcrypt_cost": 4}, public_url="http://app.example.com") == []
    assert refused_by("test", settings, auth={name: secret}) == []

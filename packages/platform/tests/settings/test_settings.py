"""Loading of settings: which values are refused, how faults are reported, and that secrets are never shown."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from tequipy_platform.database import DatabaseSettings
from tequipy_platform.messaging.celery import CelerySettings

from .example_settings import SECRET, load, refused

pytestmark = pytest.mark.usefixtures("environment")


def test_sections_are_read_and_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested names fill sections, JSON fills collections, an empty variable counts as unset, settings are frozen."""
    settings = load(
        monkeypatch,
        TEQUIPY_DATABASE__POOL_SIZE="7",
        TEQUIPY_LIMITS__POLICIES='{"login": 3}',
        TEQUIPY_DATABASE__DIRECT_URL="",
    )
    assert (settings.database.pool_size, settings.limits.policies) == (7, {"login": 3})
    assert settings.database.direct_url is None
    assert settings.public_url == "https://app.example.com"
    with pytest.raises(ValidationError):
        settings.app_name = "other"  # type: ignore[misc]  # -- the assignment must fail at run time too


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("TEQUIPY_DATABASE__URL", f"mysql://u:{SECRET}@h/d", "URL scheme should be postgresql+asyncpg"),
        ("TEQUIPY_DATABASE__URL", f"postgresql://u:{SECRET}@h/d", "URL scheme should be postgresql+asyncpg"),
        ("TEQUIPY_DATABASE__URL", SECRET, "URL scheme should be postgresql+asyncpg"),
        ("TEQUIPY_DATABASE__URL", "postgresql+asyncpg://h", "URL should name a database"),
        ("TEQUIPY_DATABASE__URL", "postgresql+asyncpg://h:70000/d", "URL should have a port from 1 to 65535"),
        ("TEQUIPY_DATABASE__URL", None, "is required"),
        (
            "TEQUIPY_DATABASE__POOL_SIZE",
            SECRET,
            "Input should be a valid integer, unable to parse string as an integer",
        ),
        ("TEQUIPY_DATABASE__POOL_SIZE", "0", "Input should be greater than or equal to 1"),
        (
            "TEQUIPY_DATABASE__PGBOUNCER",
            "true",
            "needs DIRECT_URL to be set too: LISTEN and locks cannot pass a pooler",
        ),
        ("TEQUIPY_ENVIRONMENT", None, "is required"),
        ("TEQUIPY_ENVIRONMENT", SECRET, "Input should be 'local', 'test', 'staging' or 'production'"),
        ("TEQUIPY_PUBLIC_URL", SECRET, "should be a URL as https://app.example.com"),
        ("TEQUIPY_LIMITS__POLICIES", "{" + SECRET, "Input should be a valid dictionary, as JSON"),
        ("TEQUIPY_LIMITS", "{" + SECRET, "Input should be a valid dictionary or instance of Limits, as JSON"),
        ("TEQUIPY_LIMITS__LIFETIMES__TRIES", "0", "Input should be greater than or equal to 1"),
        ("TEQUIPY_LIMITS__LIFETIMES__IDLE", "PT0S", "Input should be greater than or equal to 1 second"),
        ("TEQUIPY_ORIGINS", "*", "Input should be a valid tuple, as JSON"),
        ("TEQUIPY_ORIGINS", '["*"]', "should be origins as https://app.example.com, without a path, never *"),
        ("TEQUIPY_HEADERS", '{"cors_origins": []}', "unknown name; it is TEQUIPY_ORIGINS now"),
        ("TEQUIPY_HEADERS__CORS_ORIGINS", "[]", "unknown name; it is TEQUIPY_ORIGINS now"),
        ("TEQUIPY_HEADERS__CORS_ORIGINS__FILE", "/a", "unknown name; it is TEQUIPY_ORIGINS now"),
        ("TEQUIPY_MAIL__ORIGINS", "[]", "unknown name; it is TEQUIPY_ORIGINS now"),
        (
            "TEQUIPY_STORAGE__URL",
            f"ftp://{SECRET}",
            "should be s3://bucket/prefix, file:///absolute/folder or memory://",
        ),
        (
            "TEQUIPY_STORAGE__ENDPOINT",
            f"https://u:{SECRET}@a",
            "should be as https://s3.example.com, without path and user",
        ),
        ("TEQUIPY_STORAGE__SECRET_ACCESS_KEY", f"{SECRET}\n", "should be printable ASCII without spaces"),
        ("TEQUIPY_MAIL__SMTP_URL", f"http://{SECRET}", "URL scheme should be smtp, smtp+starttls or smtps"),
        ("TEQUIPY_MAIL__SSL_ROOT_CERT", SECRET, "Path does not point to a file"),
        ("TEQUIPY_MAIL__SSL_ROOT_CERT", __file__, "should be a readable file of PEM certificates"),
        ("TEQUIPY_MAIL__TOTAL_TIMEOUT", "30", "Input should be less than or equal to 25"),
        ("TEQUIPY_MAIL__SENDER", SECRET, "should be one address: Name <name@example.com>"),
        ("TEQUIPY_DATABASE__SCHEMAS__AUTH", "Auth-2", "should be a schema's name in lower case, as shop_auth"),
        ("TEQUIPY_DATABASE__SCHEMAS__AUTH", "pg_auth", "should be a schema's name in lower case, as shop_auth"),
        ("TEQUIPY_DATABASE__SCHEMAS__SHOP", "other", "no package has it, only: auth, platform"),
    ],
)
def test_a_fault_is_one_line_without_the_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str | None, line: str
) -> None:
    """A wrong value ends the process with 78 and one line that names the variable and not its value."""
    assert refused(monkeypatch, capsys, **{name: value}) == [f"{name}: {line}"]


def test_origins_are_spelt_as_browsers_spell_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upper case, a scheme's own port and letters beyond ASCII are normalised, and each origin is listed once."""
    listed = [
        "https://App.example.com:443",
        "https://app.example.com",
        "http://b\u00fccher.example:8080",
        "http://[::1]:3000",
    ]
    settings = load(monkeypatch, TEQUIPY_ORIGINS=json.dumps(listed))
    assert settings.origins == ("https://app.example.com", "http://xn--bcher-kva.example:8080", "http://[::1]:3000")


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://*.example.com",
        "https://app.example.com/",
        "https://app.example.com?a",
        "https://app.example.com#",
        "https://ada@app.example.com",
        "https:app.example.com",
        "https:/app.example.com/path",
        "https:*.example.com",
        "https://%2A.example.com",
        "app.example.com",
        "ftp://app.example.com",
        "https://app.example.com:99999",
        "null",
        "",
    ],
)
def test_what_is_no_origin_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], origin: str
) -> None:
    """Paths, credentials, wildcards and other schemes are refused in one line."""
    assert refused(monkeypatch, capsys, TEQUIPY_ORIGINS=json.dumps([origin])) == [
        "TEQUIPY_ORIGINS: should be origins as https://app.example.com, without a path, never *"
    ]


def test_the_old_name_in_a_file_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting of an earlier release in `.env` is one line that has the new name, with or without its section."""
    Path(".env").write_text("TEQUIPY_HEADERS__CORS_ORIGINS=[]\nTEQUIPY_MAIL__ORIGINS=[]\n")
    assert refused(monkeypatch, capsys) == [
        "TEQUIPY_HEADERS__CORS_ORIGINS: unknown name in .env; it is TEQUIPY_ORIGINS now",
        "TEQUIPY_MAIL__ORIGINS: unknown name; it is TEQUIPY_ORIGINS now",
    ]


def test_each_package_has_a_schema_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Schemas may be renamed and exchanged, but two packages cannot have the same one."""
    names = {"TEQUIPY_DATABASE__SCHEMAS__AUTH": "platform"}
    assert refused(monkeypatch, capsys, **names) == [
        "TEQUIPY_DATABASE__SCHEMAS: should give each package a schema of its own"
    ]
    settings = load(monkeypatch, **names, TEQUIPY_DATABASE__SCHEMAS__PLATFORM="auth")
    assert settings.database.schemas == {"auth": "platform", "platform": "auth"}


def test_all_faults_are_reported_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Three faults are reported in three lines, malformed JSON and faults of `.env` included."""
    Path(".env").write_text("TEQUIPY_DATABSE__URL=x\n")
    lines = refused(monkeypatch, capsys, TEQUIPY_LIMITS__POLICIES="{", TEQUIPY_PUBLIC_URL=None)
    assert [line.partition(":")[0] for line in lines] == [
        "TEQUIPY_DATABSE__URL",
        "TEQUIPY_PUBLIC_URL",
        "TEQUIPY_LIMITS__POLICIES",
    ]


@pytest.mark.parametrize("in_file", [False, True])
def test_a_value_beside_its_parts_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_file: bool
) -> None:
    """A part beside a complete value, which would be ignored, is a fault; a part alone is read."""
    whole, part = "TEQUIPY_LIMITS__POLICIES", "TEQUIPY_LIMITS__POLICIES__LOGIN"
    if in_file:
        Path(".env").write_text(f"{part}=3\n")
    else:
        monkeypatch.setenv(part, "3")
    assert load(monkeypatch, **{whole: ""}).limits.policies == {"login": 3}
    line = f"{whole}: overrides {part}; set every part as that one is, or all as one JSON object"
    assert refused(monkeypatch, capsys, **{whole: '{"register": 2}'}) == [line]
    assert refused(monkeypatch, capsys, **{whole: SECRET})[0] == line


@pytest.mark.parametrize("content", [b"TEQUIPY_APP_NAME=caf\xe9\n", b"\xff\xfeT\0E\0"], ids=["latin-1", "utf-16"])
def test_a_file_that_is_not_utf8_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """Latin-1 and UTF-16 are refused with the file's name, status 78 and no traceback."""
    Path(".env").write_bytes(content)
    assert refused(monkeypatch, capsys) == [".env: should be UTF-8 text"]


def test_a_byte_order_mark_is_no_part_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte order mark, which some editors write, does not hide the first line."""
    Path(".env").write_bytes(b"\xef\xbb\xbfTEQUIPY_APP_NAME=named\n")
    assert load(monkeypatch).app_name == "named"


def test_production_refuses_unsafe_values(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each section reports its unsafe values in production, one line each; other environments accept them."""
    changes = {
        "TEQUIPY_STORAGE__URL": "memory://",
        "TEQUIPY_PUBLIC_URL": "http://app.example.com",
    }
    assert refused(monkeypatch, capsys, TEQUIPY_ENVIRONMENT="production", **changes) == [
        "TEQUIPY_PUBLIC_URL: should begin with https:// in production: links and cookies go there",
        "TEQUIPY_MAIL__SMTP_URL: is required in production: mails in a folder are not sent",
        "TEQUIPY_STORAGE__URL: memory:// is refused in production: it ends with the process",
    ]
    load(monkeypatch, TEQUIPY_ENVIRONMENT="staging", **changes)


def test_s3_requires_both_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bucket without credentials is one line for each missing variable."""
    assert refused(monkeypatch, capsys, TEQUIPY_STORAGE__URL="s3://bucket") == [
        "TEQUIPY_STORAGE__ACCESS_KEY_ID: is required for s3://",
        "TEQUIPY_STORAGE__SECRET_ACCESS_KEY: is required for s3://",
    ]


def test_production_passes_with_everything_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mail server and a persistent storage production starts."""
    settings = load(
        monkeypatch, TEQUIPY_ENVIRONMENT="production", TEQUIPY_MAIL__SMTP_URL="smtps://u:p@mail.example.com"
    )
    assert not settings.local


def test_errors_of_a_model_hide_the_input() -> None:
    """A section that is constructed in code does not show the value it refuses either."""
    with pytest.raises(ValidationError) as error:
        DatabaseSettings(url=SecretStr(f"mysql://{SECRET}"))
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "times", [{"soft_time_limit": 300}, {"time_limit": 600}, {"visibility_timeout": 300}, {"time_limit": 270}]
)
def test_celery_times_keep_their_order(times: dict[str, int]) -> None:
    """The times must be in the order soft limit, limit, visibility timeout; any other loses or duplicates tasks."""
    with pytest.raises(ValidationError, match="soft_time_limit < time_limit < visibility_timeout"):
        CelerySettings(broker_url=SecretStr("redis://localhost/1"), **times)

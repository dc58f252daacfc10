"""Loading of settings: which values are refused, how faults are reported, and that secrets are never shown."""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from tequipy_platform.database import DatabaseSettings
from tequipy_platform.mail import MailSettings
from tequipy_platform.messaging.celery import CelerySettings
from tequipy_platform.settings import AppSettings, describe_settings, load_settings
from tequipy_platform.storage import StorageSettings
from tequipy_platform.web import HeaderSettings

SECRET = "hunter2"
GOOD = {
    "TEQUIPY_ENVIRONMENT": "test",
    "TEQUIPY_PUBLIC_URL": "https://app.example.com/",
    "TEQUIPY_DATABASE__URL": f"postgresql+asyncpg://user:{SECRET}@localhost/tequipy",
}


@dataclass(frozen=True)
class Lifetimes:
    """A section that is a dataclass, with bounds in its metadata."""

    idle: timedelta = field(default=timedelta(minutes=1), metadata={"ge": timedelta(seconds=1)})
    tries: int = field(default=3, metadata={"ge": 1})


class Limits(BaseModel):
    """A settings section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policies: dict[str, int] = Field(default_factory=dict)
    lifetimes: Lifetimes = Lifetimes()
    secrets: tuple[SecretStr, ...] = ()


class ExampleRates(BaseModel):
    """A section with fields and with further names that its app lists, as the settings of rate limits have."""

    model_config = ConfigDict(extra="allow")

    names: ClassVar[frozenset[str]] = frozenset({"login", "register"})

    default: str = "600/60"


class ExampleDatabase(DatabaseSettings):
    """Database settings with known schemas."""

    known_schemas = frozenset({"platform", "auth"})


class ExampleSettings(AppSettings):
    """Settings of an app."""

    names_of_other_apps = frozenset({"celery", "observability"})

    database: ExampleDatabase
    headers: HeaderSettings = Field(default_factory=HeaderSettings)
    mail: MailSettings = Field(default_factory=MailSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    limits: Limits = Field(default_factory=Limits)
    rate_limits: ExampleRates = Field(default_factory=ExampleRates)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all variables, so that only those of the test are set."""
    for name in [name for name in os.environ if name.startswith("TEQUIPY_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> ExampleSettings:
    for name, value in {**GOOD, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return load_settings(ExampleSettings)


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **changes: str | None) -> list[str]:
    with pytest.raises(SystemExit) as exit_:
        load(monkeypatch, **changes)
    assert exit_.value.code == os.EX_CONFIG == 78
    output = capsys.readouterr()
    assert not output.out
    assert SECRET not in output.err
    return output.err.splitlines()


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
        ("TEQUIPY_DATABASE__URL", None, "is required"),
        (
            "TEQUIPY_DATABASE__POOL_SIZE",
            SECRET,
            "Input should be a valid integer, unable to parse string as an integer",
        ),
        ("TEQUIPY_DATABASE__POOL_SIZE", "0", "Input should be greater than or equal to 1"),
        ("TEQUIPY_DATABASE__PGBOUNCER", "true", "needs DIRECT_URL beside it: LISTEN and locks cannot pass a pooler"),
        ("TEQUIPY_ENVIRONMENT", None, "is required"),
        ("TEQUIPY_ENVIRONMENT", SECRET, "Input should be 'local', 'test', 'staging' or 'production'"),
        ("TEQUIPY_PUBLIC_URL", SECRET, "should be a URL as https://app.example.com"),
        ("TEQUIPY_LIMITS__POLICIES", "{" + SECRET, "Input should be a valid dictionary, as JSON"),
        ("TEQUIPY_LIMITS", "{" + SECRET, "Input should be a valid dictionary or instance of Limits, as JSON"),
        ("TEQUIPY_LIMITS__LIFETIMES__TRIES", "0", "Input should be greater than or equal to 1"),
        ("TEQUIPY_LIMITS__LIFETIMES__IDLE", "PT0S", "Input should be greater than or equal to 1 second"),
        ("TEQUIPY_HEADERS__CORS_ORIGINS", "*", "Input should be a valid tuple, as JSON"),
        ("TEQUIPY_HEADERS__CORS_ORIGINS", '["*"]', "should be origins as https://app.example.com, never *"),
        ("TEQUIPY_STORAGE__URL", f"s3://{SECRET}", "should be file:///absolute/folder or memory://"),
        ("TEQUIPY_MAIL__SMTP_URL", f"http://{SECRET}", "URL scheme should be smtp, smtp+starttls or smtps"),
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
    line = f"{whole}: hides {part} beside it; set every part as that one is, or all as one JSON object"
    assert refused(monkeypatch, capsys, **{whole: '{"register": 2}'}) == [line]
    assert refused(monkeypatch, capsys, **{whole: SECRET})[0] == line


def test_env_file_serves_both_apps_and_refuses_typos(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`.env` may hold names of the other app, the local stack and other programs; a misspelt name gets a suggestion."""
    env_file = Path(".env")
    env_file.write_text("TEQUIPY_CELERY__BROKER_URL=x\nTEQUIPY_DEV_PORT=1\nPATH_OF_OTHERS=x\ntequipy_app_name=named\n")
    assert load(monkeypatch).app_name == "named"
    env_file.write_text(f"TEQUIPY_DATABSE__POOL_SIZE={SECRET}\n")
    assert refused(monkeypatch, capsys) == [
        "TEQUIPY_DATABSE__POOL_SIZE: unknown name in .env; did you mean TEQUIPY_DATABASE__POOL_SIZE?"
    ]


UNKNOWN = [
    ("TEQUIPY_DATABASE__ULR", "; did you mean TEQUIPY_DATABASE__URL?"),
    ("TEQUIPY_LIMITS__LIFETIMES__IDEL", "; did you mean TEQUIPY_LIMITS__LIFETIMES__IDLE?"),
    ("TEQUIPY_LIMITS__TRIES", ""),
    ("TEQUIPY_MAIL__XYZ", ""),
    ("TEQUIPY_RATE_LIMIT__LOGIN", "; did you mean TEQUIPY_RATE_LIMITS__LOGIN?"),
    ("TEQUIPY_OBSERVABILTY__LOG_LEVEL", "; did you mean TEQUIPY_OBSERVABILITY__LOG_LEVEL?"),
    ("TEQUIPY_ZZZZZZ", ""),
]


@pytest.mark.parametrize(("name", "hint"), UNKNOWN)
def test_an_unknown_exported_name_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, hint: str
) -> None:
    """An unknown exported name is one warning with the nearest name and without the value; nothing is refused."""
    load(monkeypatch, **{name: SECRET})
    assert capsys.readouterr().err == f"warning: {name}: unknown name{hint}\n"


@pytest.mark.parametrize(("name", "hint"), UNKNOWN)
def test_a_strict_check_refuses_an_unknown_exported_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, hint: str
) -> None:
    """`settings --check` reports the same line and ends with status 78."""
    load(monkeypatch, **{name: SECRET})
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        load_settings(ExampleSettings, strict=True)
    assert exit_.value.code == os.EX_CONFIG
    assert capsys.readouterr().err == f"{name}: unknown name{hint}\n"


@pytest.mark.parametrize(("name", "hint"), UNKNOWN)
def test_an_unknown_name_in_the_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, hint: str
) -> None:
    """An unknown name in `.env` is a fault, because the file is written for this release."""
    Path(".env").write_text(f"{name}={SECRET}\n")
    (line,) = refused(monkeypatch, capsys)
    assert line in {f"{name}: unknown name{hint}", f"{name}: unknown name in .env{hint}"}


KUBERNETES = {
    f"TEQUIPY_{service}_{name}": value
    for service in ("API", "WORKER", "API_METRICS", "DATABASE")
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.0.0.1",
    }.items()
}


def test_variables_of_kubernetes_are_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Variables of Kubernetes Services named tequipy-api or tequipy-worker neither warn nor fail a strict check."""
    load(monkeypatch, **KUBERNETES)
    load_settings(ExampleSettings, strict=True)
    assert capsys.readouterr().err == ""


def test_known_names_warn_of_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of the other app and the local stack, keys of mappings and names in any case pass the strict check."""
    names = {"TEQUIPY_CELERY__X": "x", "TEQUIPY_DEV_PORT": "1", "TEQUIPY_LIMITS__POLICIES__A": "1"}
    names |= {"tequipy_app_name": "named", "TEQUIPY_RATE_LIMITS__LOGIN": "1/1"}
    load(monkeypatch, **names)
    assert load_settings(ExampleSettings, strict=True).app_name == "named"
    assert capsys.readouterr().err == ""


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
        "TEQUIPY_HEADERS__CORS_ORIGINS": '["https://a.example.com", "http://b.example.com"]',
    }
    assert refused(monkeypatch, capsys, TEQUIPY_ENVIRONMENT="production", **changes) == [
        "TEQUIPY_PUBLIC_URL: should begin with https:// in production: links and cookies go there",
        "TEQUIPY_HEADERS__CORS_ORIGINS: should be https:// origins alone in production",
        "TEQUIPY_MAIL__SMTP_URL: is required in production: mails in a folder are not sent",
        "TEQUIPY_STORAGE__URL: memory:// is refused in production: it ends with the process",
    ]
    load(monkeypatch, TEQUIPY_ENVIRONMENT="staging", **changes)


def test_production_passes_with_everything_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mail server and a persistent storage production starts."""
    settings = load(
        monkeypatch, TEQUIPY_ENVIRONMENT="production", TEQUIPY_MAIL__SMTP_URL="smtps://u:p@mail.example.com"
    )
    assert not settings.local


def test_effective_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The description has a line for every variable, defaults included, and masks all secrets, nested ones too."""
    lines = describe_settings(load(monkeypatch, TEQUIPY_LIMITS__SECRETS=f'["{SECRET}"]'))
    assert "TEQUIPY_ENVIRONMENT=test" in lines
    assert "TEQUIPY_DATABASE__URL=**********" in lines
    assert "TEQUIPY_DATABASE__POOL_SIZE=5" in lines
    assert "TEQUIPY_DATABASE__DIRECT_URL=null" in lines
    assert 'TEQUIPY_LIMITS__SECRETS=["**********"]' in lines
    assert "TEQUIPY_LIMITS__LIFETIMES__IDLE=60.0" in lines
    assert "TEQUIPY_LIMITS__LIFETIMES__TRIES=3" in lines
    assert not any(SECRET in line for line in lines)


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

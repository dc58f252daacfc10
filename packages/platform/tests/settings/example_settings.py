"""The settings of an example app, and functions that load them from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

from tequipy_platform.database import DatabaseSettings
from tequipy_platform.mail import MailSettings
from tequipy_platform.settings import AppSettings, Origins, load_settings
from tequipy_platform.storage import StorageSettings

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

    names: ClassVar[Mapping[str, FieldInfo]] = {
        name: FieldInfo.from_annotated_attribute(str, Field(default="60/60", description="A further rate."))
        for name in ("login", "register")
    }

    default: str = "600/60"


class ExampleDatabase(DatabaseSettings):
    """Database settings with known schemas."""

    known_schemas = frozenset({"platform", "auth"})


class ExampleSettings(AppSettings):
    """Settings of an app."""

    names_of_other_apps = frozenset({"celery", "observability"})
    renamed: ClassVar[Mapping[str, str]] = {"headers": "origins", "mail__origins": "origins"}

    database: ExampleDatabase
    origins: Origins = ()
    mail: MailSettings = Field(default_factory=MailSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    limits: Limits = Field(default_factory=Limits)
    rate_limits: ExampleRates = Field(default_factory=ExampleRates)


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

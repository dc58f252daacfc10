"""The settings model of every app, and its checks for staging and production."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from tequipy_platform.settings.secret_checks import builtin_secret_faults, guessable_secret_faults
from tequipy_platform.settings.sources import ENCODING, ENV_FILE, EnvironmentSource, TolerantDotEnv
from tequipy_platform.settings.urls import PublicUrl

Environment = Literal["local", "test", "staging", "production"]
"""Where the process runs: `local` is a developer's machine; `production` refuses unsafe settings."""


@runtime_checkable
class ProductionChecked(Protocol):
    """A settings section with checks for production."""

    production_rules: ClassVar[Mapping[str, str]]
    """What production requires of a field, by its name: the message of the fault, and a line of the documentation."""

    def production_faults(self) -> Iterable[tuple[str, str]]:
        """Return, for each fault, the field's name and what is wrong with its value; `a.b` is the field b of a."""


class AppSettings(BaseSettings):
    """The settings of every app; each app adds its sections. Names begin with `TEQUIPY_`, `__` separates sections."""

    model_config = SettingsConfigDict(
        env_prefix="TEQUIPY_",
        env_nested_delimiter="__",
        env_file=ENV_FILE,
        env_file_encoding=ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    names_of_other_apps: ClassVar[frozenset[str]] = frozenset()
    """First parts of names that belong to other apps which share the environment and `.env`: they are not unknown."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Settings of earlier releases that have another name now, in lower case: the new name by the old one, which may be
    a whole section. The old names are refused."""

    production_rules: ClassVar[Mapping[str, str]] = {
        "public_url": "should begin with https:// in production: links and cookies go there"
    }
    """What production requires of a setting, beside the rules of its section; `a.b` is the field b of a."""

    app_name: str = "tequipy"
    """The name of the product: the title of the HTTP contract, the name of the Celery app, and a part of
    `User-Agent`."""
    app_version: str = Field(default_factory=partial(version, "tequipy-platform"))
    """The version in logs, metrics, spans and messages; by default that of the installed packages.

    Give each build its own (a commit hash will do): a relay takes an event from its own version to be complete.
    """
    environment: Environment
    """Where the process runs. `local` has console logs and cookies without TLS; `staging` refuses built-in secrets, and
    `production` everything that is unsafe."""
    public_url: PublicUrl
    """The URL under which people reach the app; links in mails begin with it, and so does `iss` of access tokens."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- replaced by its tolerant twin
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use sources that pass malformed JSON on as text, so that it is reported like any other wrong value."""
        env_file = dotenv_settings.env_file if isinstance(dotenv_settings, DotEnvSettingsSource) else None
        return (
            init_settings,
            EnvironmentSource(settings_cls),
            TolerantDotEnv(settings_cls, env_file=env_file),
            file_secret_settings,
        )

    @property
    def local(self) -> bool:
        """Whether the process runs on a developer's machine."""
        return self.environment == "local"

    def staging_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield a field's path and the fault, for each value that staging and production refuse."""
        for name in type(self).model_fields:
            for field, message in builtin_secret_faults(getattr(self, name)):
                yield (name, field), message

    def production_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield a field's path and the fault, for each value that only production refuses.

        Sections that are `ProductionChecked` are included; an app extends this for faults across sections.
        """
        if not self.public_url.startswith("https://"):
            yield ("public_url",), self.production_rules["public_url"]
        for name in type(self).model_fields:
            section = getattr(self, name)
            for field, message in guessable_secret_faults(section):
                yield (name, field), message
            if isinstance(section, ProductionChecked):
                for field, message in section.production_faults():
                    yield (name, *field.split(".")), message

    @model_validator(mode="after")
    def _refuse_unsafe_values(self) -> Self:
        faults = list(self.staging_faults()) if self.environment in {"staging", "production"} else []
        faults += self.production_faults() if self.environment == "production" else []
        if faults:
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    # The message is an argument and not the template, which would interpret braces in it.
                    InitErrorDetails(
                        type=PydanticCustomError("production", "{message}", {"message": message}), loc=path, input=None
                    )
                    for path, message in faults
                ],
                hide_input=True,
            )
        return self

"""Loading, validation and display of settings from the environment and `.env`. Only apps load settings."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, Protocol, Self, TypeVar, runtime_checkable
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, AnyHttpUrl, BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, to_jsonable_python
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tequipy_platform.infrastructure.secret_checks import builtin_secret_faults, guessable_secret_faults
from tequipy_platform.infrastructure.unknown_names import (
    nearest_name,
    section_of,
    setting_paths,
    unknown_exported,
    unknown_in_file,
)

_ENV_FILE: Final = Path(".env")
_ENCODING: Final = "utf-8-sig"
"""UTF-8, with or without a byte order mark."""

Environment = Literal["local", "test", "staging", "production"]
"""Where the process runs: `local` is a developer's machine; `production` refuses unsafe settings."""


def _public_url(text: str) -> str:
    try:
        url = AnyHttpUrl(text)
    except ValidationError as error:
        raise PydanticCustomError("url", "should be a URL as https://app.example.com") from error
    if url.query or url.fragment or url.username or url.password:
        raise PydanticCustomError("url", "should be a URL without credentials, query and fragment")
    return str(url).rstrip("/")


PublicUrl = Annotated[str, AfterValidator(_public_url)]
"""An http or https URL without a trailing slash."""


def split_url(secret: SecretStr) -> SplitResult:
    """Return the parts of a URL that may hold a password; the error for an invalid port never quotes the URL."""
    try:
        parts = urlsplit(secret.get_secret_value())
        _ = parts.port  # a / in a password ends the host part early, and the rest is no number
    except ValueError:
        raise PydanticCustomError("url", "user and password should be percent-encoded (/ as %2F, @ as %40)") from None
    return parts


@runtime_checkable
class ProductionChecked(Protocol):
    """A settings section with checks for production."""

    def production_faults(self) -> Iterable[tuple[str, str]]:
        """Return, for each fault, the field's name and what is wrong with its value."""


class _TolerantJson(EnvSettingsSource):
    """Passes malformed JSON on as a string, so that validation reports it together with all other faults."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401 -- pydantic-settings' signature
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class _Environment(_TolerantJson):
    """Reads the environment without unknown variables, which only cause a warning."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        unknown = {name.lower() for name in _unknown_exported(self.settings_cls)}
        return {name: value for name, value in super()._load_env_vars().items() if name.lower() not in unknown}


class _TolerantDotEnv(_TolerantJson, DotEnvSettingsSource):
    """Reads `.env` in the same way."""


class AppSettings(BaseSettings):
    """The settings of every app; each app adds its sections. Names begin with `TEQUIPY_`, `__` separates sections."""

    model_config = SettingsConfigDict(
        env_prefix="TEQUIPY_",
        env_nested_delimiter="__",
        env_file=_ENV_FILE,
        env_file_encoding=_ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    app_name: str = "tequipy"
    app_version: str = Field(default_factory=partial(version, "tequipy-platform"))
    environment: Environment
    public_url: PublicUrl
    """The URL under which people reach the app; links in mails begin with it."""

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
            _Environment(settings_cls),
            _TolerantDotEnv(settings_cls, env_file=env_file),
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
            yield ("public_url",), "should begin with https:// in production: links and cookies go there"
        for name in type(self).model_fields:
            section = getattr(self, name)
            for field, message in guessable_secret_faults(section):
                yield (name, field), message
            if isinstance(section, ProductionChecked):
                for field, message in section.production_faults():
                    yield (name, field), message

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


S = TypeVar("S", bound=AppSettings)


def load_settings(cls: type[S], *, strict: bool = False) -> S:
    """Load settings from the environment and `.env`.

    Ends the process with status 78 (`EX_CONFIG`) and one line per fault on standard error, without any value, if a
    setting is missing or wrong, or if `.env` holds a name with this prefix that neither app knows. An unknown exported
    name is only a warning unless `strict`, because a release that was rolled back meets the settings of a newer one.
    """
    faults = list(_env_file_faults(cls))
    unknown = [f"{key}: unknown name{_hint(cls, key)}" for key in _unknown_exported(cls)]
    if strict:
        faults += unknown
    elif not faults:
        sys.stderr.writelines(f"warning: {line}\n" for line in unknown)
    settings: S | None = None
    with suppress(UnicodeDecodeError, OSError):  # faults of `.env`, which are reported already
        faults += _values_given_twice(cls)
        try:
            settings = cls()
        except ValidationError as error:
            for details in error.errors(include_url=False, include_input=False):
                faults += _fault_lines(cls, details)
    if settings is None or faults:
        refuse(faults)
    return settings


def refuse(faults: Iterable[str]) -> NoReturn:
    """End the process with status 78 (`EX_CONFIG`) and one line per fault on standard error."""
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    raise SystemExit(os.EX_CONFIG)


def refuse_missing_folder(variable: str) -> None:
    """End the process with status 78 and one line if a library's variable is set but names no usable folder."""
    folder = os.environ.get(variable)  # noqa: TID251 -- only apps call this
    if folder and not (Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        refuse([f"{variable}: should name a folder that exists and can be written to, or be unset"])


def describe_settings(settings: AppSettings) -> list[str]:
    """Return the effective settings as lines such as `TEQUIPY_DATABASE__POOL_SIZE=5`; secrets become `**********`."""
    return list(_describe(settings, _prefix(type(settings))))


def _prefix(cls: type[BaseSettings]) -> str:
    return cls.model_config.get("env_prefix", "")


def _variable(cls: type[BaseSettings], path: Iterable[str | int]) -> str:
    return _prefix(cls) + "__".join(str(step) for step in path).upper()


def _env_file_faults(cls: type[AppSettings]) -> Iterator[str]:
    try:
        # `dotenv_values` is not given the file, because it treats an unreadable file as empty.
        text = _ENV_FILE.read_text(encoding=_ENCODING) if _ENV_FILE.is_file() else ""
    except UnicodeDecodeError:
        yield f"{_ENV_FILE}: should be UTF-8 text"
    except OSError as error:
        yield f"{_ENV_FILE}: cannot be read: {error.strerror}"
    else:
        for key in unknown_in_file(cls, _prefix(cls), dotenv_values(stream=StringIO(text))):
            yield f"{key}: unknown name in {_ENV_FILE}{_hint(cls, key)}"


def _unknown_exported(cls: type[BaseSettings]) -> list[str]:
    return unknown_exported(cls, _prefix(cls), os.environ)  # noqa: TID251 -- the source of an app's settings


def _hint(cls: type[AppSettings], key: str) -> str:
    nearest = nearest_name(cls, _prefix(cls), key)
    return f"; did you mean {nearest}?" if nearest else ""


def _values_given_twice(cls: type[AppSettings]) -> Iterator[str]:
    """Yield a fault for each value that is set both as a whole and in parts, because the parts would be ignored."""
    given = {*_TolerantJson(cls).env_vars, *_TolerantDotEnv(cls, env_file=_ENV_FILE).env_vars}
    for whole in (_variable(cls, path) for path in setting_paths(cls)):
        parts = [name for name in given if name.startswith(f"{whole}__".lower())]
        if parts and whole.lower() in given:
            hidden = min(parts).upper()
            yield f"{whole}: hides {hidden} beside it; set every part as that one is, or all as one JSON object"


def _fault_lines(cls: type[AppSettings], details: ErrorDetails) -> Iterator[str]:
    path = tuple(str(step) for step in details["loc"])
    if details["type"] == "missing":
        for required in _required_below(cls, path):
            yield f"{_variable(cls, required)}: is required"
    elif details["type"] == "extra_forbidden":
        yield f"{_variable(cls, path)}: unknown name{_hint(cls, _variable(cls, path))}"
    else:
        json_hint = ", as JSON" if details["type"] in {"model_type", "dict_type", "list_type", "tuple_type"} else ""
        message = details["msg"].removeprefix("Value error, ")
        yield f"{_variable(cls, path)}: {message}{json_hint}"


def _required_below(cls: type[BaseModel], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the required fields below a missing section, or the path of the missing field itself."""
    model: type[BaseModel] | None = cls
    for step in path:
        model = section_of(model.model_fields.get(step)) if model else None
    fields = model.model_fields.items() if model else ()
    return [
        below for name, field in fields if field.is_required() for below in _required_below(cls, (*path, name))
    ] or [path]


def _describe(model: BaseModel, prefix: str) -> Iterator[str]:
    for name in (*type(model).model_fields, *(model.model_extra or {})):
        value = getattr(model, name)
        variable = prefix + name.upper()
        if isinstance(value, BaseModel):
            yield from _describe(value, f"{variable}__")
        elif isinstance(value, str | SecretStr):
            yield f"{variable}={value}"
        else:
            # JSON, the form in which the variable would be set; pydantic masks a SecretStr inside.
            yield f"{variable}={json.dumps(to_jsonable_python(value))}"

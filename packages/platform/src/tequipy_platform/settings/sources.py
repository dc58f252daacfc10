"""The environment and `.env` as sources of settings; malformed values are passed on to validation.

Both read a value from a file when the name of its setting has `__FILE` at its end.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from tequipy_platform.settings.unknown_names import FILE_SUFFIX, unknown_exported

ENV_FILE: Final = Path(".env")
ENCODING: Final = "utf-8-sig"
"""UTF-8, with or without a byte order mark."""


class UnreadableValue(Exception):
    """A file does not contain a value; the message says why, without the path, which may be a misplaced secret."""


class TolerantJson(EnvSettingsSource):
    """Reads values from files, and passes malformed JSON on as text; `load_settings` reports the faults of both."""

    file_faults: Mapping[str, str]
    """What is wrong with a file, by the name of the variable that names it, in lower case."""
    from_files: frozenset[str]
    """The names of values that were read from files, in lower case and without the suffix."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401 -- pydantic-settings' signature
        """Return the decoded value, or the text itself if it is not JSON."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value

    def _load_env_vars(self) -> Mapping[str, str | None]:
        """Return the variables, where `NAME__FILE` of our own settings is replaced by `NAME` with the file's content.

        The variables of other apps are left alone: their files are perhaps not on this machine.
        """
        variables = dict(super()._load_env_vars())
        prefix = self.env_prefix.lower()
        faults: dict[str, str] = {}
        found: set[str] = set()
        for name in [name for name in variables if name.endswith(FILE_SUFFIX)]:
            setting = name.removesuffix(FILE_SUFFIX)
            top = setting.removeprefix(prefix).partition("__")[0]
            if not setting.startswith(prefix) or top not in self.settings_cls.model_fields:
                continue
            path = variables.pop(name)
            if setting in variables:
                faults[name] = f"is set together with {setting.upper()}: set one of them"
                continue
            try:
                variables[setting] = read_value(path or "")
            except UnreadableValue as error:
                faults[name] = str(error)
            else:
                found.add(setting)
        self.file_faults, self.from_files = faults, frozenset(found)
        return variables


class _KnownVariables(EnvSettingsSource):
    """Reads the environment without unknown variables, which only cause a warning."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        unknown = {name.lower() for name in unknown_variables(self.settings_cls)}
        return {name: value for name, value in super()._load_env_vars().items() if name.lower() not in unknown}


class EnvironmentSource(TolerantJson, _KnownVariables):
    """Reads the environment."""


class TolerantDotEnv(TolerantJson, DotEnvSettingsSource):
    """Reads `.env` in the same way."""


def read_value(path: str) -> str:
    """Return the text of a file without the newlines at its end; raises `UnreadableValue`."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # reading a pipe could take for ever
            raise UnreadableValue("should name a regular file")
        text = Path(path).read_text(encoding=ENCODING).rstrip("\r\n")
    except OSError as error:
        raise UnreadableValue(f"the file cannot be read: {error.strerror}") from error
    except ValueError as error:  # `UnicodeDecodeError` is a subclass
        raise UnreadableValue("should name a file of UTF-8 text") from error
    if not text:
        raise UnreadableValue("the file is empty")
    return text


def prefix_of(cls: type[BaseSettings]) -> str:
    """Return the prefix of a model's variables."""
    return cls.model_config.get("env_prefix", "")


def unknown_variables(cls: type[BaseSettings]) -> list[str]:
    """Return the exported variables with the prefix that no app knows."""
    return unknown_exported(cls, prefix_of(cls), os.environ)  # noqa: TID251 -- the source of an app's settings

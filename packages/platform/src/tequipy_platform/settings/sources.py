"""The environment and `.env` as sources of settings; malformed values are passed on to validation."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from tequipy_platform.settings.unknown_names import unknown_exported

ENV_FILE: Final = Path(".env")
ENCODING: Final = "utf-8-sig"
"""UTF-8, with or without a byte order mark."""


class TolerantJson(EnvSettingsSource):
    """Passes malformed JSON on as a string, so that validation reports it together with all other faults."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401 -- pydantic-settings' signature
        """Return the decoded value, or the text itself if it is not JSON."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class EnvironmentSource(TolerantJson):
    """Reads the environment without unknown variables, which only cause a warning."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        unknown = {name.lower() for name in unknown_variables(self.settings_cls)}
        return {name: value for name, value in super()._load_env_vars().items() if name.lower() not in unknown}


class TolerantDotEnv(TolerantJson, DotEnvSettingsSource):
    """Reads `.env` in the same way."""


def prefix_of(cls: type[BaseSettings]) -> str:
    """Return the prefix of a model's variables."""
    return cls.model_config.get("env_prefix", "")


def unknown_variables(cls: type[BaseSettings]) -> list[str]:
    """Return the exported variables with the prefix that no app knows."""
    return unknown_exported(cls, prefix_of(cls), os.environ)  # noqa: TID251 -- the source of an app's settings

"""Display of the settings in force, with masked secrets."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Final

from pydantic import BaseModel

from tequipy_platform.settings.app_settings import AppSettings
from tequipy_platform.settings.loading import variable_of
from tequipy_platform.settings.reference import settings_of
from tequipy_platform.settings.sources import ENV_FILE, EnvironmentSource, TolerantDotEnv, TolerantJson
from tequipy_platform.settings.unknown_names import FILE_SUFFIX, fields_of
from tequipy_platform.settings.values import text_of

_WIDTH: Final = 100
_INDENT: Final = "    "


def describe_settings(settings: AppSettings) -> list[str]:
    """Return the settings in force as lines of the form `NAME=value`; secrets become `**********`."""
    cls = type(settings)
    return [f"{variable_of(cls, path)}={text_of(value)}" for path, value in _values(settings)]


def explain_settings(settings: AppSettings) -> list[str]:
    """Return the lines of `describe_settings`, each followed by where its value comes from, and what it means.

    `settings` must have been loaded from the environment as it is now.
    """
    cls = type(settings)
    known = {setting.path: setting for setting in settings_of(cls)}
    sources: Mapping[str, TolerantJson] = {
        "environment": EnvironmentSource(cls),
        str(ENV_FILE): TolerantDotEnv(cls, env_file=ENV_FILE),
    }
    given = {label: source() for label, source in sources.items()}
    lines: list[str] = []
    for path, value in _values(settings):
        if (setting := known.get(path)) is None:
            continue
        variable = variable_of(cls, path)
        label = next((label for label, values in given.items() if _contains(values, path)), None)
        place = _file_of(sources[label], variable) or label if label else "default"
        rules = [f"Production: {rule}." for rule in setting.rules]
        paragraphs = [f"From: {place}. Default: {setting.default}. Type: {setting.type}.", setting.meaning, *rules]
        lines.append(f"{variable}={text_of(value)}")
        for paragraph in paragraphs:
            lines += textwrap.wrap(
                paragraph,
                _WIDTH,
                initial_indent=_INDENT,
                subsequent_indent=_INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
        lines.append("")
    return lines


def _values(section: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield path and value of each setting; a name that is not given has the default that the section declares."""
    for name, field in fields_of(type(section)).items():
        value = getattr(section, name, field.default)
        if isinstance(value, BaseModel) or is_dataclass(value):
            yield from _values(value, (*path, name))
        else:
            yield (*path, name), value


def _contains(values: object, path: tuple[str, ...]) -> bool:
    """Return whether a source has a value for a setting."""
    for step in path:
        if not isinstance(values, Mapping) or step not in values:
            return False
        values = values[step]
    return True


def _file_of(source: TolerantJson, variable: str) -> str | None:
    """Return which variable names the file that a setting, a part of it or a whole that contains it was read from."""
    name = variable.lower()
    for read in sorted(source.from_files):
        if read == name or read.startswith(f"{name}__") or name.startswith(f"{read}__"):
            return f"file ({read.upper()}{FILE_SUFFIX.upper()})"
    return None

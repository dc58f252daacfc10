"""Loading of settings, and the end of a process whose settings are wrong."""

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import NoReturn, TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

from tequipy_platform.settings.app_settings import AppSettings
from tequipy_platform.settings.sources import (
    ENCODING,
    ENV_FILE,
    EnvironmentSource,
    TolerantDotEnv,
    TolerantJson,
    prefix_of,
    unknown_variables,
)
from tequipy_platform.settings.unknown_names import (
    FILE_SUFFIX,
    fields_of,
    nearest_name,
    section_of,
    setting_paths,
    unknown_in_file,
)

S = TypeVar("S", bound=AppSettings)


def load_settings(cls: type[S], *, strict: bool = False) -> S:
    """Load settings from the environment and `.env`; `NAME__FILE` in either names a file with the value of `NAME`.

    Ends the process with status 78 (`EX_CONFIG`) and one line per fault on standard error, without any value, if a
    setting is missing or wrong, has another name now, or if `.env` holds a name with this prefix that no app knows. An
    unknown exported name is only a warning unless `strict`, because a release that was rolled back meets the settings
    of a newer one.
    """
    faults = list(_env_file_faults(cls))
    keys = unknown_variables(cls)
    unknown = [f"{key}: unknown name{_hint(cls, key)}" for key in keys if _new_name(cls, key) is None]
    faults += [f"{key}: unknown name{_hint(cls, key)}" for key in keys if _new_name(cls, key) is not None]
    if strict:
        faults += unknown
    elif not faults:
        sys.stderr.writelines(f"warning: {line}\n" for line in unknown)
    settings: S | None = None
    with suppress(UnicodeDecodeError, OSError):  # faults of `.env`, which are reported already
        sources = [EnvironmentSource(cls), TolerantDotEnv(cls, env_file=ENV_FILE)]
        faults += _values_given_twice(cls, sources)
        unread = {name: message for source in sources for name, message in source.file_faults.items()}
        faults += [f"{name.upper()}: {message}" for name, message in unread.items()]
        try:
            settings = cls()
        except ValidationError as error:
            for details in error.errors(include_url=False, include_input=False):
                faults += [line for line in _fault_lines(cls, details) if not _is_unread(line, unread)]
    if settings is None or faults:
        refuse(dict.fromkeys(faults))  # a renamed variable is a fault of the environment, and of its section
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


def variable_of(cls: type[BaseSettings], path: Iterable[str | int]) -> str:
    """Return the name of the variable that sets a field, given the path to the field (`("database", "url")`)."""
    return prefix_of(cls) + "__".join(str(step) for step in path).upper()


def _env_file_faults(cls: type[AppSettings]) -> Iterator[str]:
    try:
        # `dotenv_values` is not given the file, because it treats an unreadable file as empty.
        text = ENV_FILE.read_text(encoding=ENCODING) if ENV_FILE.is_file() else ""
    except UnicodeDecodeError:
        yield f"{ENV_FILE}: should be UTF-8 text"
    except OSError as error:
        yield f"{ENV_FILE}: cannot be read: {error.strerror}"
    else:
        for key in unknown_in_file(cls, prefix_of(cls), dotenv_values(stream=StringIO(text))):
            yield f"{key}: unknown name in {ENV_FILE}{_hint(cls, key)}"


def _hint(cls: type[AppSettings], key: str) -> str:
    if new := _new_name(cls, key):
        return f"; it is {new} now"
    nearest = nearest_name(cls, prefix_of(cls), key)
    return f"; did you mean {nearest}?" if nearest else ""


def _new_name(cls: type[AppSettings], key: str) -> str | None:
    """Return what a variable of an earlier release is called now, or None if it is not one."""
    name = f"{key.lower().removeprefix(prefix_of(cls).lower())}__"
    new = next((new for old, new in cls.renamed.items() if name.startswith(f"{old}__")), None)
    return new and prefix_of(cls) + new.upper()


def _is_unread(line: str, unread: Collection[str]) -> bool:
    """Return whether a fault is about a value whose file could not be read, which is a fault already."""
    variable = line.partition(":")[0].lower()
    return any(variable == name.removesuffix(FILE_SUFFIX) for name in unread)


def _values_given_twice(cls: type[AppSettings], sources: Iterable[TolerantJson]) -> Iterator[str]:
    """Yield a fault for each value that is set both as a whole and in parts, because the parts would be ignored."""
    given = {name for source in sources for name in source.env_vars}
    for whole in (variable_of(cls, path) for path in setting_paths(cls)):
        parts = [name for name in given if name.startswith(f"{whole}__".lower())]
        if parts and whole.lower() in given:
            hidden = min(parts).upper()
            yield f"{whole}: overrides {hidden}; set every part as that one is, or all as one JSON object"


def _fault_lines(cls: type[AppSettings], details: ErrorDetails) -> Iterator[str]:
    path = tuple(str(step) for step in details["loc"])
    if details["type"] == "missing":
        for required in _required_below(cls, path):
            yield f"{variable_of(cls, required)}: is required"
    elif details["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:  # of a model, of a dataclass
        yield f"{variable_of(cls, path)}: unknown name{_hint(cls, variable_of(cls, path))}"
    else:
        json_hint = ", as JSON" if details["type"] in {"model_type", "dict_type", "list_type", "tuple_type"} else ""
        message = details["msg"].removeprefix("Value error, ")
        yield f"{variable_of(cls, path)}: {message}{json_hint}"


def _required_below(cls: type[BaseModel], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the required fields below a missing section, or the path of the missing field itself."""
    model: type[object] | None = cls
    for step in path:
        model = section_of(fields_of(model).get(step)) if model else None
    fields = fields_of(model).items() if model else ()
    return [
        below for name, field in fields if field.is_required() for below in _required_below(cls, (*path, name))
    ] or [path]

"""What each setting is: its name, type, default, meaning and rules for production, read from the settings models."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic.types import PathType

from tequipy_platform.settings.app_settings import AppSettings
from tequipy_platform.settings.secret_checks import BUILT_IN_RULE, GUESSABLE_RULE, HoldsSecrets
from tequipy_platform.settings.unknown_names import fields_of, section_of
from tequipy_platform.settings.values import text_of

ENTRY: Final = "<NAME>"
"""The step of a path that stands for any key of a mapping."""

PARTS: Final = "JSON object, or its parts"
"""The type of a value that consists of further settings."""

_NAMES: Final = {
    SecretStr: "secret text",
    str: "text",
    bool: "`true` or `false`",
    int: "integer",
    float: "number",
    timedelta: "seconds",
}
_PATHS: Final = {"file": "path of a file", "dir": "path of a folder"}
_BOUNDS: Final = {"ge": "at least {}", "gt": "greater than {}", "le": "at most {}", "lt": "less than {}"}
_LENGTHS: Final = {"min_length": "at least {} {}", "max_length": "at most {} {}"}
"""The attributes of pydantic's constraints."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of an app."""

    path: tuple[str, ...]
    """The names of its sections and its own; `ENTRY` is any key of a mapping."""
    type: str
    """The type with its bounds, in words."""
    default: str
    """As the variable would be written, or in words."""
    meaning: str
    """The docstring of the field."""
    rules: tuple[str, ...]
    """What production requires of the value."""


def settings_of(cls: type[AppSettings]) -> Iterator[Setting]:
    """Yield each setting of an app in the order of its model, entries of mappings and further names included."""
    yield from _settings(cls, (), None, {tuple(key.split(".")): [rule] for key, rule in cls.production_rules.items()})


def _settings(
    section: type[object], path: tuple[str, ...], defaults: object, rules: Mapping[tuple[str, ...], list[str]]
) -> Iterator[Setting]:
    documentation = _documentation(section)
    rules = _with_rules_of(section, path, rules)
    for name, field in fields_of(section).items():
        place = (*path, name)
        default = field.default if defaults is None else getattr(defaults, name)
        meaning = field.description or documentation.get(name, "")
        if (below := section_of(field)) is not None:
            if path:
                yield Setting(place, PARTS, "that of its parts", meaning, ())
            yield from _settings(below, place, default if isinstance(default, below) else None, rules)
            continue
        kind = _type_of(field.annotation, field.metadata)
        if kind is None:
            continue
        text = _words_for(field) if defaults is None else None
        yield Setting(place, kind, text or _text_of_default(default), meaning, tuple(rules.get(place, ())))
        if (entry := _section_of_entries(field.annotation)) is not None:
            yield from _settings(entry, (*place, ENTRY), None, rules)


def _with_rules_of(
    section: type[object], path: tuple[str, ...], rules: Mapping[tuple[str, ...], list[str]]
) -> Mapping[tuple[str, ...], list[str]]:
    merged = {place: [*texts] for place, texts in rules.items()}
    if path:  # an app's own rules begin with the names of its sections
        for key, rule in getattr(section, "production_rules", {}).items():
            merged.setdefault((*path, *key.split(".")), []).append(rule)
    if issubclass(section, HoldsSecrets) and issubclass(section, BaseModel):
        defaults = section.model_construct()
        for name in cast("HoldsSecrets", defaults).random_secrets():
            rule = BUILT_IN_RULE if getattr(defaults, name) else GUESSABLE_RULE
            merged.setdefault((*path, name), []).append(rule)
    return merged


def _documentation(section: type[object]) -> Mapping[str, str]:
    """Return the docstrings of the fields of a class and of its bases, each in one line."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if cls.__module__.partition(".")[0] in {"builtins", "pydantic", "pydantic_settings"}:
            continue
        definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        body = cast("ast.ClassDef", definition).body
        for statement, following in pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                found[statement.target.id] = " ".join(str(following.value.value).split())
    return found


def _words_for(field: FieldInfo) -> str | None:
    """Return what stands for the default of a field that has no default value, or None."""
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "`{}`" if field.default_factory is dict else "computed"
    return None


def _text_of_default(default: object) -> str:
    if default is None:
        return "unset"
    if _holds_secret(default):
        return "built in, for `local` and `test` alone"
    return f"`{text_of(default)}`"


def _holds_secret(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_secret(each) for each in value.values())
    return isinstance(value, SecretStr)


def _section_of_entries(annotation: Any) -> type[object] | None:  # noqa: ANN401 -- any type form
    """Return the model or dataclass of a mapping's values, or None."""
    if get_origin(annotation) in {dict, Mapping}:
        return section_of(FieldInfo(annotation=get_args(annotation)[1]))
    return None


def _type_of(annotation: Any, metadata: Sequence[Any] = ()) -> str | None:  # noqa: ANN401, PLR0911 -- any type form, one return for each
    """Return a type in words; None for one that no text can set."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_of(arguments[0], [*arguments[1:], *metadata])
    if origin in {Union, UnionType}:
        return " or ".join(
            text for each in arguments if each is not NoneType and (text := _type_of(each, metadata)) is not None
        )
    if origin is Literal:
        return "one of " + ", ".join(f"`{each}`" for each in arguments)
    if origin is tuple:
        return f"JSON list of {_type_of(arguments[0])}"
    if origin in {dict, Mapping}:
        key, value = arguments
        if get_origin(key) is type:
            return None
        if section_of(FieldInfo(annotation=value)):
            return PARTS
        return f"JSON object of {_type_of(value)}" + _bounds(metadata, "entries")
    if annotation is Path:
        return next((_PATHS[each.path_type] for each in metadata if isinstance(each, PathType)), "path")
    return _NAMES.get(annotation, "network, such as `10.0.0.0/8`") + _bounds(metadata, "characters")


def _bounds(metadata: Sequence[Any], counted: str) -> str:
    """Return the bounds among the metadata of a field, each after a comma; `counted` is what a length counts."""
    texts = []
    for each in metadata:
        if isinstance(each, FieldInfo):
            texts.append(_bounds(each.metadata, counted))
        for attribute, text in (_BOUNDS | _LENGTHS).items():
            if (bound := getattr(each, attribute, None)) is not None:
                texts.append(
                    ", not empty"
                    if (attribute, bound) == ("min_length", 1)
                    else f", {text.format(text_of(bound), counted)}"
                )
    return "".join(texts)

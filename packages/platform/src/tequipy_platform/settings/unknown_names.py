"""Unknown variables with an app's prefix: a warning if exported, an error in `.env`."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

DEVELOPMENT_NAMES: Final = "dev_"
"""The prefix of names that belong to the local stack (`TEQUIPY_DEV_PORT`)."""

FILE_SUFFIX: Final = "__file"
"""The end of a variable that names a file with the value, instead of holding the value."""

_KUBERNETES: Final = re.compile(
    r"([a-z0-9_]+_)?(service_host|service_port(_[a-z0-9_]+)?|port_\d+_(tcp|udp|sctp)(_[a-z]+)?)"
)
_KUBERNETES_PORT: Final = re.compile(r"(tcp|udp|sctp)://")


def section_of(field: FieldInfo | None) -> type[object] | None:
    """Return the model or dataclass of a field that is a settings section, or None."""
    annotation = field.annotation if field else None
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return annotation
    return None


def fields_of(section: type[object]) -> Mapping[str, FieldInfo]:
    """Return the fields of a section by name, and the further names that its app declares in `names`."""
    if issubclass(section, BaseModel):
        return {**section.model_fields, **getattr(section, "names", {})}
    assert is_dataclass(section)  # noqa: S101 -- `section_of` returns nothing else
    return {each.name: FieldInfo.from_annotated_attribute(cast("Any", each.type), each) for each in fields(section)}


def setting_paths(model: type[object], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path to every setting below a model."""
    for name, field in fields_of(model).items():
        section = section_of(field)
        yield from setting_paths(section, (*path, name)) if section else ((*path, name),)


def unknown_exported(model: type[BaseModel], prefix: str, environment: Mapping[str, str]) -> list[str]:
    """Return the variables with the prefix that name no setting of any app; Kubernetes' own are left out."""
    return [
        key
        for key, value in environment.items()
        if key.lower().startswith(prefix.lower())
        and not _is_known(model, name := key.lower().removeprefix(prefix.lower()))
        and not (_KUBERNETES.fullmatch(name) or (name.endswith("port") and _KUBERNETES_PORT.match(value)))
    ]


def unknown_in_file(model: type[BaseModel], prefix: str, keys: Iterable[str]) -> list[str]:
    """Return the keys with the prefix whose first part no app knows; the model validates the other parts."""
    known = _top_names(model)
    names = {key: key.lower().removeprefix(prefix.lower()).partition("__")[0] for key in keys}
    return [
        key
        for key, name in names.items()
        if key.lower().startswith(prefix.lower()) and name not in known and not name.startswith(DEVELOPMENT_NAMES)
    ]


def nearest_name(model: type[BaseModel], prefix: str, key: str) -> str | None:
    """Return the known variable that is most similar to a misspelt one, or None."""
    if key.lower().endswith(FILE_SUFFIX):
        nearest = nearest_name(model, prefix, key[: -len(FILE_SUFFIX)])
        return nearest and nearest + FILE_SUFFIX.upper()
    first, *rest = key.lower().removeprefix(prefix.lower()).split("__")
    tops = _top_names(model)
    if first not in tops:
        near = difflib.get_close_matches(first, sorted(tops), n=1)
        return _variable(prefix, [*near, *rest]) if near else None
    known = [_variable(prefix, path) for path in setting_paths(model)]
    # A stricter cutoff than the default, because names of one section share their beginning.
    return next(iter(difflib.get_close_matches(_variable(prefix, [first, *rest]), known, n=1, cutoff=0.85)), None)


def _top_names(model: type[BaseModel]) -> set[str]:
    """Return the names of the app's own fields, and those of the apps that share its environment."""
    return {*model.model_fields, *getattr(model, "names_of_other_apps", ())}


def _variable(prefix: str, path: Sequence[str]) -> str:
    return prefix + "__".join(path).upper()


def _is_known(model: type[BaseModel], name: str) -> bool:
    first, *rest = name.removesuffix(FILE_SUFFIX).split("__")
    if first not in model.model_fields:
        return first in _top_names(model) or first.startswith(DEVELOPMENT_NAMES)
    section = section_of(model.model_fields[first])
    for step in rest:
        if section is None:
            return True  # a key of a mapping, which the field validates
        known = fields_of(section)
        if step not in known:
            return False
        section = section_of(known[step])
    return True

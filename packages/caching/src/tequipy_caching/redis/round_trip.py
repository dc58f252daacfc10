"""A comparison of a value with its decoded copy, types included: `1 == True`, and subclasses may be equal."""

from collections.abc import Iterable
from decimal import Decimal
from math import isnan
from types import NoneType
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

_PLAIN: Final = frozenset({str, int, bool, bytes, NoneType})
"""Types whose values are identical if type and value are equal, so that they need no deeper comparison."""
_ABSENT: Final = object()


def difference(one: Any, other: Any, path: str = "it") -> str | None:  # noqa: ANN401 -- values of any type
    """Return a description of the first difference, or None. It has names of fields and types, never values."""
    kind = type(one)
    if isinstance(one, UUID) and isinstance(other, UUID) and one == other:  # asyncpg returns its own subclass of UUID
        return None
    if kind is not type(other):
        return f"{path} is {kind.__name__} and is read back as {type(other).__name__}"
    if kind is list or isinstance(one, tuple):
        same = len(one) == len(other)
        found = _first(zip(one, other, strict=True), path) if same else f"{path} is read back with another length"
    elif kind is dict:
        found = _of_dicts(one, other, path)
    elif kind is set or kind is frozenset:
        found = None if _typed(one) == _typed(other) else f"{path} is read back with other members"
    elif names := _fields(kind):
        found = _of_objects(one, other, names, path)
    elif isinstance(one, BaseModel):
        found = _of_models(one, other, path)
    else:
        nan = isinstance(one, float | Decimal) and isnan(one) and isnan(other)
        found = None if one == other or nan else f"{path} is read back as a different {kind.__name__}"
    return found


def _first(pairs: Iterable[tuple[Any, Any]], path: str) -> str | None:
    """Return the first difference between pairs of members. Plain members are compared inline to save a call."""
    for one, other in pairs:
        kind = type(one)
        if kind in _PLAIN and kind is type(other) and one == other:
            continue
        found = difference(one, other, f"a member of {path}")
        if found is not None:
            return found
    return None


def _of_dicts(one: dict[Any, Any], other: dict[Any, Any], path: str) -> str | None:
    if _typed(one) != _typed(other):
        return f"{path} is read back with other keys"
    return _first(((value, other[key]) for key, value in one.items()), path)


def _typed(members: Iterable[Any]) -> set[tuple[type, Any]]:
    return {(type(member), member) for member in members}


def _of_models(one: BaseModel, other: BaseModel, path: str) -> str | None:
    return (
        _of_objects(one, other, type(one).model_fields, path)
        or difference(one.__pydantic_extra__, other.__pydantic_extra__, f"the extra of {path}")
        or difference(one.__pydantic_private__, other.__pydantic_private__, f"the private part of {path}")
    )


def _of_objects(one: object, other: object, names: Iterable[str], path: str) -> str | None:
    for name in names:
        before, after = getattr(one, name, _ABSENT), getattr(other, name, _ABSENT)
        kind = type(before)
        if kind in _PLAIN and kind is type(after) and before == after:
            continue
        found = difference(before, after, f"{path}.{name}")
        if found is not None:
            return found
    return None


def _fields(kind: type) -> Iterable[str]:
    names: Iterable[str] = getattr(kind, "__dataclass_fields__", ())
    return names

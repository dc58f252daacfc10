"""A value read from Redis equals the value stored, or the store is refused with the name of the difference."""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    computed_field,
)
from typing_extensions import TypedDict

from tequipy_caching.redis.codec import Codec
from tequipy_caching.redis.envelope import HEADER_BYTES
from tequipy_caching.redis.round_trip import difference


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Plain(Enum):
    ONE = 1


class Pairs(Enum):
    ONE = (1, 2)


class Model(BaseModel):
    number: int


class Sub(Model):
    more: int = 0


class Excluding(BaseModel):
    number: int
    hidden: int = Field(default=0, exclude=True)


class Private(BaseModel):
    number: int
    _hidden: int = PrivateAttr(default=0)


class Rounded(BaseModel):
    number: Annotated[float, PlainSerializer(round)]


class Growing(BaseModel):
    number: Annotated[int, AfterValidator(lambda number: number + 1)]


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")


class Computed(BaseModel):
    number: int

    @computed_field  # type: ignore[prop-decorator]  # -- as pydantic documents it
    @property
    def double(self) -> int:
        return 2 * self.number


class Row(TypedDict):
    name: str
    data: int | None


class Point(NamedTuple):
    x: int
    y: float


@dataclass(frozen=True)
class Data:
    number: int


@dataclass(frozen=True)
class MoreData(Data):
    more: int = 0


@dataclass
class Derived:
    number: int
    sum: int = field(init=False, default=0)


@dataclass(frozen=True)
class Loose:
    name: str
    tags: tuple[str, ...] = ()


def private() -> Private:
    made = Private(number=1)
    made._hidden = 7
    return made


def derived() -> Derived:
    made = Derived(1)
    made.sum = 7
    return made


CHANGED: list[tuple[Any, Any]] = [
    (Excluding, Excluding(number=1, hidden=2)),
    (Private, private()),
    (Model, Sub(number=1, more=2)),
    (list[Model], [Model(number=1), Sub(number=1, more=2)]),
    (Data, MoreData(1, 2)),
    (dict[str, Data], {"a": MoreData(1, 2)}),
    (Rounded, Rounded(number=1.5)),
    (Growing, Growing(number=1)),
    (Extra, Extra(day=date(2026, 1, 1))),
    (Derived, derived()),
    (Any, date(2026, 1, 1)),
    (Any, (1, 2)),
    (object, {1: 2}),
    (dict, {1: 2}),
    (tuple, (1, (2, 3))),
    (list[Any], [b"bytes"]),
    (date | str, "2026-01-01"),
    (UUID | str, str(UUID(int=1))),
    (set[int] | list[int], {1}),
    (Sequence[int], (1, 2)),
    (str, Colour.RED),
    (int, True),
    (float, 1),
    (Loose, Loose(Colour.RED)),
    (Pairs, Pairs.ONE),
    (Mapping[str, int], OrderedDict(a=1)),
]
"""Types, and values that are read back differently."""

KEPT: list[tuple[Any, Any]] = [
    (Model, Model(number=1)),
    (Sub, Sub(number=1, more=2)),
    (Model | Sub, Sub(number=1, more=2)),
    (Computed, Computed(number=1)),
    (Extra, Extra(number=1)),
    (RootModel[list[int]], RootModel[list[int]]([1, 2])),
    (Row, {"data": None, "name": "Ada"}),
    (Point, Point(1, 2.5)),
    (Data, Data(1)),
    (Loose, Loose("ada", ("a",))),
    (int | str, "1"),
    (int | float, 1.0),
    (bytes, b"\x00\xff"),
    (float, math.nan),
    (float, -0.0),
    (list[float], [math.inf, -math.inf]),
    (Decimal, Decimal("1.50")),
    (datetime, datetime(2026, 1, 1, 12, 30, 15, 123456)),  # noqa: DTZ001 -- naive ones are values too
    (AwareDatetime, datetime(2026, 1, 1, tzinfo=UTC)),
    (time, time(12, 30)),
    (timedelta, timedelta(days=1, microseconds=1)),
    (Plain, Plain.ONE),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Literal["a", 1], 1),
    (IPv4Address, IPv4Address("10.0.0.1")),
    (PurePosixPath, PurePosixPath("/a/b")),
    (deque[int], deque([1, 2])),
    (Counter[str], Counter(a=2)),
    (dict[int, frozenset[str]], {1: frozenset({"a", "b"})}),
    (tuple[int, str] | None, None),
    (Any, {"a": [1, None, "x", True, 2.5]}),
]
"""Types, and values that are read back unchanged."""


def back(type_: Any, value: Any) -> Any:
    """Return the value that another process gets."""
    codec: Codec[Any] = Codec(type_, 1_000_000)
    return codec.decode(codec.encode("key", value, ttl=1, tail=0)[HEADER_BYTES:])


@pytest.mark.parametrize(("type_", "value"), CHANGED)
def test_a_value_that_would_change_is_refused(type_: Any, value: Any) -> None:
    """A value that would be read back differently, also in its type only, is a `TypeError` at the first `set`."""
    with pytest.raises(TypeError, match=r"would be read back from the cache differently"):
        print(f"{type_}: {value!r} came back as {back(type_, value)!r}")


@pytest.mark.parametrize(("type_", "value"), KEPT)
def test_a_value_that_is_read_back_unchanged_is_stored(type_: Any, value: Any) -> None:
    """Values that are read back unchanged are not refused."""
    assert (
        repr(back(type_, value)).replace("TzInfo(0)", "datetime.timezone.utc") == repr(value)
        or back(type_, value) == value
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
SHAPES = st.sampled_from([Any, dict[str, Any], list[int], dict[str, int], list[bool | float], int | str | None, Row])


@given(SHAPES, VALUES)
def test_any_value_is_read_back_unchanged_or_refused(type_: Any, value: Any) -> None:
    """For any value of any type, the value read back is the same, types included, or the value is refused."""
    try:
        found = back(type_, value)
    except TypeError:
        return
    if isinstance(value, dict):
        assert list(map(repr, sorted(value.items()))) == list(map(repr, sorted(found.items())))
    else:
        assert repr(found) == repr(value)


def test_the_refusal_shows_no_value() -> None:
    """The error names fields and types, but shows no values, because they may be secret."""
    with pytest.raises(TypeError, match="hidden") as refused:
        back(list[Excluding], [Excluding(number=1, hidden=90210)])
    assert "90210" not in str(refused.value)
    with pytest.raises(TypeError, match="cannot be read back") as refused:
        back(Annotated[str, AfterValidator(lambda text: text if text == "no" else text[99])], "hunter2")
    assert "hunter2" not in str(refused.value)


def test_the_first_large_values_are_checked() -> None:
    """Values over 64 KiB are decoded again 32 times for each type, and then no more: it blocks the event loop."""
    codec: Codec[list[int]] = Codec(list[int], 1_000_000)
    large: Any = [True] + [1] * 40_000
    for _ in range(32):
        with pytest.raises(TypeError, match="is bool"):
            codec.encode("key", large, ttl=1, tail=0)
    assert codec.encode("key", large, ttl=1, tail=0)


class DriverUUID(UUID):
    """A subclass of UUID, such as asyncpg's."""


def test_a_drivers_uuid_is_a_uuid() -> None:
    """The UUID subclass of a driver may be read back as `uuid.UUID`; a different id is refused."""
    text = "0190d6f0-0000-7000-8000-000000000001"
    assert difference(DriverUUID(text), UUID(text)) is None
    assert difference(DriverUUID(text), UUID(int=1)) is not None

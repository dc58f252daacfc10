"""What comes back from Redis is the value that went there, or it is refused."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypedDict

from tequipy_caching.infrastructure.codec import Codec
from tequipy_caching.infrastructure.envelope import HEADER_BYTES, TOMBSTONE, VALUE, new_state, take_apart


@dataclass(frozen=True)
class Person:
    id: UUID
    name: str
    born: datetime | None = None
    account: Decimal = Decimal(0)
    roles: frozenset[str] = frozenset()


class Aliased(BaseModel):
    name: str = Field(validation_alias="n", serialization_alias="out")


class Row(TypedDict):
    name: str
    data: int | None


class Holder(BaseModel):
    secret: SecretStr


PERSON: Codec[Person] = Codec(Person, 1024)
ADA = Person(UUID(int=1), "Ada")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PEOPLE = st.builds(
    Person,
    id=st.uuids(),
    name=TEXT,
    born=st.none() | st.datetimes(),
    account=st.decimals(allow_nan=False, allow_infinity=False, places=4),
    roles=st.frozensets(TEXT, max_size=3),
)


@given(TEXT, PEOPLE, st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_value_comes_back(key: str, person: Person, life: int, tail: int) -> None:
    """Decoding gives what was encoded, and the envelope its times."""
    opened = PERSON.open(key, PERSON.encode(key, person, life=life, tail=tail))
    assert (PERSON.decode(opened.body), opened.life, opened.tail) == (person, life, tail)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Aliased, Aliased(n="Ada")),
        (Row, {"name": "Ada", "data": None}),
        (list[int], [1, 2]),
        (bytes, b"\x00\xff"),
        (float, float("inf")),
        (bool, False),
        (str, ""),
        (type(None), None),
    ],
)
def test_many_types_come_back(type_: Any, value: object) -> None:
    """Models with aliases, TypedDicts, containers, bytes, infinity and falsy values are values like others."""
    codec: Codec[Any] = Codec(type_, 1024)
    assert codec.decode(codec.open("key", codec.encode("key", value, life=1, tail=0)).body) == value


@given(st.data())
def test_one_flipped_bit_is_noticed(data: st.DataObject) -> None:
    """Wherever a bit is flipped, in header or body, the bytes are refused."""
    sealed = bytearray(PERSON.encode("ada", ADA, life=1, tail=0))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match=r"."):
        PERSON.open("ada", bytes(sealed))


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(foreign: bytes) -> None:
    """What this package has not written is no value, whatever it is."""
    with pytest.raises(ValueError, match="not an envelope"):
        PERSON.open("ada", foreign)


def test_what_belongs_elsewhere_is_refused() -> None:
    """The bytes of another key, another shape or a larger size are not this key's value."""
    sealed = PERSON.encode("ada", ADA, life=1, tail=0)
    with pytest.raises(ValueError, match="key"):
        PERSON.open("bob", sealed)
    with pytest.raises(ValueError, match="shape"):
        Codec(str, 1024).open("ada", sealed)
    with pytest.raises(ValueError, match="too large"):
        Codec(Person, 8).open("ada", sealed)
    with pytest.raises(ValueError, match="not an envelope"):
        PERSON.open("ada", sealed[: HEADER_BYTES - 1])


def test_no_two_states_look_the_same() -> None:
    """The same kind of state made twice differs, so that a store can tell whether something has changed."""
    assert new_state(VALUE) != new_state(VALUE)
    assert take_apart(new_state(TOMBSTONE)).kind == TOMBSTONE


def stored(tags: int) -> bytes:
    """Return what the scripts make of a value: state, generation, tags, envelope."""
    stamp = bytes([tags]) + b"".join(b"%016x" % number + b"g" * 16 for number in range(tags))
    return new_state(VALUE) + b"g" * 16 + stamp + PERSON.encode("ada", ADA, life=1, tail=0)


@pytest.mark.parametrize("tags", [0, 1, 3])
def test_what_redis_holds_is_taken_apart(tags: int) -> None:
    """Kind, ids of the tags and envelope come out as they were put together."""
    parts = take_apart(stored(tags))
    assert (parts.kind, parts.tags) == (VALUE, tuple(f"{number:016x}" for number in range(tags)))
    assert PERSON.decode(PERSON.open("ada", parts.envelope).body) == ADA


@given(st.data())
def test_no_flipped_bit_makes_another_value(data: st.DataObject) -> None:
    """Wherever a bit of what Redis holds is flipped, it is refused or the value is the right one."""
    damaged = bytearray(stored(2))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        value = PERSON.decode(PERSON.open("ada", take_apart(bytes(damaged)).envelope).body)
    except ValueError:
        return
    assert value == ADA


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_state(foreign: bytes) -> None:
    """What this package has not written is neither a value nor a tombstone."""
    with pytest.raises(ValueError, match="not a state"):
        take_apart(foreign)


@pytest.mark.parametrize("type_", [Holder, type(lambda: None)])
def test_types_that_json_does_not_carry_are_refused(type_: type) -> None:
    """A type without a JSON form, or with secrets that JSON would mask, is refused when its cache is named."""
    with pytest.raises(TypeError, match=r"no JSON form|holds a secret"):
        Codec(type_, 1024)


def test_a_value_of_another_type_is_refused() -> None:
    """A value that is not of the cache's type never reaches Redis."""
    with pytest.raises(TypeError, match="this int cannot be encoded"):
        PERSON.encode("ada", 42, life=1, tail=0)  # type: ignore[arg-type]

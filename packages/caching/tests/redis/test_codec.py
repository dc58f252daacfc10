"""A value read from Redis equals the value written, or it is refused."""

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

from tequipy_caching.redis.codec import Codec
from tequipy_caching.redis.envelope import EXPIRED, HEADER_BYTES, NO_VALUE, TOMBSTONE, VALUE, new_state


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


def stored(envelope: bytes, *, kind: bytes = VALUE, tags: int = 0) -> bytes:
    """Return the entry that the scripts write: state, generation, tags, envelope."""
    stamp = bytes([tags]) + b"".join(b"%016x" % number + b"g" * 16 for number in range(tags))
    return new_state(kind) + b"g" * 16 + stamp + envelope


ENCODED = PERSON.encode("ada", ADA, ttl=1, tail=0)


@given(TEXT, PEOPLE, st.integers(0, 2**63), st.integers(0, 2**63))
def test_decoding_returns_the_encoded_value(key: str, person: Person, ttl: int, tail: int) -> None:
    """Decoding returns the encoded value, and the envelope its times."""
    *times, body = PERSON.parse(key, stored(PERSON.encode(key, person, ttl=ttl, tail=tail)))[2:]
    assert (PERSON.decode(body), times) == (person, [ttl, tail])


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
def test_many_types_are_decoded_as_encoded(type_: Any, value: object) -> None:
    """Models with aliases, TypedDicts, containers, bytes, infinity and falsy values are decoded as encoded."""
    codec: Codec[Any] = Codec(type_, 1024)
    assert codec.decode(codec.parse("key", stored(codec.encode("key", value, ttl=1, tail=0)))[-1]) == value


@given(st.data())
def test_a_flipped_bit_in_an_envelope_is_refused(data: st.DataObject) -> None:
    """An envelope with one flipped bit is refused, wherever the bit is."""
    encoded = bytearray(ENCODED)
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match=r"."):
        PERSON.parse("ada", stored(bytes(encoded)))


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(foreign: bytes) -> None:
    """Bytes that this package did not write are refused, under any key."""
    with pytest.raises(ValueError, match="not a state"):
        PERSON.parse("ada", foreign)
    with pytest.raises(ValueError, match=r"damaged"):
        PERSON.parse("ada", stored(foreign))


def test_another_keys_envelope_is_refused() -> None:
    """An envelope of another key or schema, or of a larger size, is refused."""
    with pytest.raises(ValueError, match="key"):
        PERSON.parse("bob", stored(ENCODED))
    with pytest.raises(ValueError, match="schema"):
        Codec(str, 1024).parse("ada", stored(ENCODED))
    with pytest.raises(ValueError, match="too large"):
        Codec(Person, 8).parse("ada", stored(ENCODED))
    for end in (1, 16, 17, 17 + HEADER_BYTES - 1):  # cut within the generation, the number of tags, or the envelope
        with pytest.raises(ValueError, match="damaged envelope"):
            PERSON.parse("ada", stored(ENCODED)[: len(new_state(VALUE)) + end])


@pytest.mark.parametrize("kind", [VALUE, EXPIRED, TOMBSTONE])
def test_states_are_unique(kind: bytes) -> None:
    """Two states of one kind differ, so that a store detects a change; a state alone has no value."""
    assert new_state(kind) != new_state(kind)
    assert PERSON.parse("ada", new_state(kind)) == NO_VALUE


@pytest.mark.parametrize("tags", [0, 1, 3])
@pytest.mark.parametrize("kind", [VALUE, EXPIRED])
def test_an_entry_is_split_into_its_parts(kind: bytes, tags: int) -> None:
    """An entry is split into its kind, the ids of its tags and its value."""
    its_kind, its_tags, *_, body = PERSON.parse("ada", stored(ENCODED, kind=kind, tags=tags))
    assert (its_kind, its_tags) == (kind, tuple(f"{number:016x}" for number in range(tags)))
    assert PERSON.decode(body) == ADA


def test_a_tombstone_with_a_value_is_damaged() -> None:
    """A tombstone followed by a value is damaged."""
    with pytest.raises(ValueError, match="damaged envelope"):
        PERSON.parse("ada", stored(ENCODED, kind=TOMBSTONE))


@given(st.data())
def test_a_flipped_bit_never_gives_another_value(data: st.DataObject) -> None:
    """An entry with one flipped bit is refused or gives the right value, wherever the bit is."""
    damaged = bytearray(stored(ENCODED, tags=2))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        value = PERSON.decode(PERSON.parse("ada", bytes(damaged))[-1])
    except ValueError:
        return
    assert value == ADA


@pytest.mark.parametrize("type_", [Holder, type(lambda: None)])
def test_types_without_a_json_form_are_refused(type_: type) -> None:
    """A type without a JSON form, or with secrets that JSON would mask, is refused when its cache is created."""
    with pytest.raises(TypeError, match=r"no JSON form|holds a secret"):
        Codec(type_, 1024)


def test_a_value_of_another_type_is_refused() -> None:
    """A value of another type than the cache's is not stored, and the error does not show it: it may be a secret."""
    with pytest.raises(TypeError, match="this int cannot be encoded"):
        PERSON.encode("ada", 42, ttl=1, tail=0)  # type: ignore[arg-type]
    secret: Any = {"pin": "hunter2, input_type=\n"}
    with pytest.raises(TypeError, match="Expected `int`") as error:
        Codec(dict[str, int], 1024).encode("ada", secret, ttl=1, tail=0)
    assert "hunter2" not in str(error.value)

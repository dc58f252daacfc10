"""Different keys have different names, whatever they contain."""

from enum import IntEnum, StrEnum
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tequipy_caching.cache.keys import MAX_BYTES, Key, canonical, encode_key, tag_id

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text("ab:~%0123456789\x00é", max_size=8)
# Text of the characters that encode the structure of a key.
TRICKY = st.lists(st.sampled_from(["a", "1", "3", ":", ",", "s:", "s:a", "t:", "3:s:a"]), max_size=6).map("".join)
KEYS: st.SearchStrategy[Key] = st.recursive(
    TEXT | st.integers() | st.uuids(), lambda parts: st.lists(parts, max_size=4).map(tuple), max_leaves=8
)


class Colour(StrEnum):
    RED = "red"


@given(KEYS, KEYS)
def test_two_keys_have_two_names(one: Key, other: Key) -> None:
    """Names are equal exactly if the keys are equal."""
    assert (encode_key(one) == encode_key(other)) == (one == other)


@given(st.lists(TRICKY, max_size=3), st.lists(TRICKY, max_size=3))
@example(["a", "b"], ["a,s:b"])
@example(["a", "b"], ["a3:s:b"])
def test_elements_of_tuples_are_encoded_separately(one: list[str], other: list[str]) -> None:
    """Text in an element of a tuple is never mistaken for the separator of two elements."""
    assert (encode_key(tuple(one)) == encode_key(tuple(other))) == (one == other)


@given(KEYS | st.text(st.characters(exclude_categories=["Cs"]), min_size=100, max_size=900))
def test_a_name_is_short(key: Key) -> None:
    """The name of a key has at most 512 bytes, however long the key is."""
    assert len(encode_key(key).encode()) <= MAX_BYTES


@given(st.text("ab", min_size=505, max_size=520), st.text("ab", min_size=505, max_size=520))
def test_long_keys_have_different_names(one: str, other: str) -> None:
    """Near and above the limit, a hash distinguishes keys with the same beginning."""
    one, other = "a" * 400 + one, "a" * 400 + other
    assert (encode_key(one) == encode_key(other)) == (one == other)


def test_a_long_name_stays_readable() -> None:
    """A shortened name shows how the key begins, and is not the name of any short key."""
    name = encode_key("user:" + "é" * 600)
    assert name.startswith("h:s:user:éé")
    assert encode_key(name) != name


@pytest.mark.parametrize("key", [True, 1.0, None, b"x", ("a", 1.0), (1, True)])
def test_other_types_are_refused(key: object) -> None:
    """Floats and booleans are refused as keys and in tuples, because `True == 1` and `1.0 == 1`."""
    with pytest.raises(TypeError, match="a key is a str, int, UUID or a tuple of these, not"):
        encode_key(key)  # type: ignore[arg-type]


def test_types_of_keys_are_distinguished() -> None:
    """A number, its text and a tuple of it are different keys; a subclass with an equal value is the same key."""
    identity = UUID(int=1)
    keys: list[Key] = [1, "1", (1,), ("1",), ((1,),), (), "", identity, str(identity), "i:1", identity.hex]
    assert len({encode_key(key) for key in keys}) == len(keys)
    assert encode_key(Colour.RED) == encode_key("red")


def test_lone_surrogates_are_refused() -> None:
    """A string that UTF-8 cannot encode is refused."""
    with pytest.raises(ValueError, match="surrogates"):
        encode_key("\ud800")


class Number(IntEnum):
    ONE = 1


class Id(UUID):
    pass


def test_a_subclass_is_the_key_that_it_equals() -> None:
    """Members of enumerations and other subclasses are the same key as the plain value that they equal."""
    key = canonical((Colour.RED, Number.ONE, Id(int=7), ("x",)))
    assert key == ("red", 1, UUID(int=7), ("x",))
    assert [type(part) for part in key] == [str, int, UUID, tuple]  # type: ignore[union-attr]  # -- a tuple


def test_tags_have_ids() -> None:
    """The id of a tag is short, always the same, and different from the ids of other tags."""
    assert tag_id("team:7") == tag_id("team:7") != tag_id("team:8")
    assert len(tag_id("team:7" * 1000)) == 16

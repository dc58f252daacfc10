"""Which secrets count as random, and which are refused as guessable."""

import base64
import secrets
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tequipy_platform.settings.secret_checks import (
    BUILT_IN,
    builtin_secret_faults,
    guessable_secret_faults,
    is_guessable,
)


class Section:
    """A settings section with two fields."""

    def __init__(self, *values: str) -> None:
        self._values = values

    def random_secrets(self) -> dict[str, list[SecretStr]]:
        return {"keys": [SecretStr(value) for value in self._values], "other": [SecretStr(secrets.token_hex(16))]}


@given(part=st.text(min_size=1, max_size=40), times=st.integers(2, 40))
def test_a_part_that_repeats_is_guessable(part: str, times: int) -> None:
    """A repeated part is guessable, whatever its length."""
    assert is_guessable(part * times)


@pytest.mark.parametrize(
    "secret",
    [
        "s" * 32,
        "ab" * 16,
        "changeme-changeme-changeme-changeme",
        string.ascii_lowercase + "012345",
        "zyxwvutsrqponmlkjihgfedcba987654",
        "0123456789" * 3 + "01",
        "1" * 31 + "2",
        "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb",
    ],
)
def test_typed_secrets_are_guessable(secret: str) -> None:
    """Few characters, a sequence or a repeated word are guessable even with 32 characters or more."""
    assert len(secret) >= 32
    assert is_guessable(secret)


def test_random_secrets_are_not_guessable() -> None:
    """Of 10,000 random secrets of the usual kinds, and tokens of 16 characters, none is refused."""
    for _ in range(2500):
        raw = secrets.token_bytes(32)
        kinds = [raw.hex(), raw.hex()[:16], base64.b64encode(raw).decode(), secrets.token_urlsafe(32)[:32]]
        assert [kind for kind in kinds if is_guessable(kind)] == []


def test_the_field_is_named_and_the_secret_is_not() -> None:
    """Each field with guessable secrets is one fault without the secret; a section without secrets has none."""
    typed = "changeme-" * 4
    assert [field for field, _ in guessable_secret_faults(Section(typed, "s" * 32))] == ["keys"]
    assert [field for field, _ in builtin_secret_faults(Section(BUILT_IN + secrets.token_hex(16), typed))] == ["keys"]
    assert "changeme" not in str(list(guessable_secret_faults(Section(typed))))
    assert list(guessable_secret_faults(object())) == list(builtin_secret_faults(object())) == []

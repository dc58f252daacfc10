"""Display names and other text that is shown to users."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tequipy_auth import InvalidName
from tequipy_auth.domain.display_text import display_name, without_invisible

VARIATION_SELECTORS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
"""Characters without a width of their own, besides combining marks, that a name may contain: they choose a glyph."""

BIDI_CLASSES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    "character",
    [*"\n\x00\x85\u202e\u2066\u200e\u061c\u200b\u200d\u2060\ufeff\u00ad\u180e\u3164\u2028\U000e0041"],
    ids=ascii,
)
@pytest.mark.parametrize("name", ["Ada{}Lovelace", "{}Ada", "Ada{}", " {} Ada", "{}"])
def test_invisible_characters_are_refused(name: str, character: str) -> None:
    """Control, bidirectional and zero-width characters are refused at any position, even at the ends."""
    with pytest.raises(InvalidName):
        display_name(name.format(character))


@pytest.mark.parametrize(
    "name",
    [
        "Ada Lovelace",
        "x" * 100,
        "O\u2019Neill",
        "A\u030angstro\u0308m",
        "\u05d0\u05d3\u05d4",
        "\u1112\u1161\u11ab",
        "\u8fbb\U000e0100",
        "\u263a\ufe0f",
    ],
    ids=ascii,
)
def test_names_may_use_any_script(name: str) -> None:
    """Letters of every script, combining marks and variation selectors are allowed; outer spaces are trimmed."""
    assert display_name(f"  {name}\u3000") == name


@pytest.mark.parametrize("name", ["", "   ", "x" * 101])
def test_the_length_of_names_is_limited(name: str) -> None:
    """A name has 1 to 100 characters after trimming."""
    with pytest.raises(InvalidName):
        display_name(name)


@given(st.text())
@example("\u206f")
def test_no_accepted_name_holds_control_or_bidirectional_characters(text: str) -> None:
    """Accepted names contain no control, bidirectional or zero-width format character by Unicode's own properties."""
    shown = without_invisible(text)
    for character in shown:
        assert unicodedata.category(character) not in {"Cc", "Zl", "Zp"}
        assert unicodedata.bidirectional(character) not in BIDI_CLASSES
    try:
        name = display_name(text)
    except InvalidName:
        return
    assert name == shown.strip() == text.strip()


def test_format_characters_without_a_glyph_are_invisible() -> None:
    """Of category Cf only signs with a glyph, and the joiners of Egyptian hieroglyphs, are accepted."""
    accepted = {
        code
        for code in range(0x110000)
        if unicodedata.category(chr(code)) == "Cf" and without_invisible(chr(code)) and code not in VARIATION_SELECTORS
    }
    blocks = [range(0x0600, 0x0606), [0x06DD, 0x070F, 0x08E2], [0x0890, 0x0891, 0x110BD, 0x110CD]]
    blocks.append(range(0x13430, 0x13440))
    assert accepted <= {code for block in blocks for code in block}

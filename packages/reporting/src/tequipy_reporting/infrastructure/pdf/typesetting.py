"""One line of text that a person wrote: in any script, in its reading direction, and never wider than its place."""

import unicodedata
from typing import Final

from fontTools.ttLib import TTFont  # type: ignore[import-untyped]  # -- fontTools ships no types
from fpdf import FPDF
from fpdf.fonts import TTFFont

from tequipy_fonts import FALLBACKS, REGULAR

ELLIPSIS: Final = "…"
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_MOST_MARKS: Final = 3
"""The number of marks on a letter, as a Hebrew one has; more would be drawn over the lines above and below."""


def draw_line(pdf: FPDF, text: str, width: float, height: float) -> None:
    """Write a text into a cell of this width in mm, shortened with an ellipsis if it is longer."""
    # Only here, because the number of pages (`{nb}`) cannot be replaced in shaped text.
    pdf.set_text_shaping(use_shaping_engine=True)
    pdf.cell(width, height, fitting_line(pdf, text, width - 2 * pdf.c_margin))
    pdf.set_text_shaping(use_shaping_engine=False)


def fitting_line(pdf: FPDF, text: str, width: float) -> str:
    """Return what of a text fits into this width in mm; an ellipsis stands for the rest.

    A character without a glyph is replaced. Fonts of other scripts are loaded only if the text needs them, because the
    largest takes a quarter of a second.
    """
    return _shortened(pdf, _printable(text, _load_fonts(pdf, text)), width)


def close_fonts(pdf: FPDF) -> None:
    """Close the files of the fonts, which the library leaves open."""
    for font in pdf.fonts.values():
        if isinstance(font, TTFFont):
            font.ttfont.close()


def _load_fonts(pdf: FPDF, text: str) -> set[str]:
    """Add the fonts for what the regular one lacks; return the characters of the text that have a glyph."""
    missing = set(text)
    fallbacks = []
    for path in (REGULAR, *FALLBACKS):
        with TTFont(path, fontNumber=0, lazy=True) as font:
            covered = {character for character in missing if ord(character) in font.getBestCmap()}
        missing -= covered
        if covered and path != REGULAR:
            family = path.stem.lower()
            if family not in pdf.fonts:
                pdf.add_font(family, fname=path, collection_font_number=0)
            fallbacks.append(family)
        if not missing:
            break
    pdf.set_fallback_fonts(fallbacks, exact_match=False)
    return set(text) - missing


def _printable(text: str, covered: set[str]) -> str:
    """Return the text with one replacement character for each run of characters without a glyph.

    Of many marks on a letter the first ones remain.
    """
    result, marks = "", 0
    for character in text:
        category = unicodedata.category(character)
        if category in {"Mn", "Me"}:
            marks += 1
            if marks > _MOST_MARKS:
                continue
        elif category != "Cf":  # such as a joiner, which starts no letter
            marks = 0
        if character in covered:
            result += character
        elif category[0] not in "CM" and not result.endswith(_REPLACEMENT):
            result += _REPLACEMENT
    return result


def _shortened(pdf: FPDF, text: str, room: float) -> str:
    """Return the text, or its longest beginning that fits with an ellipsis and tears no mark from its letter."""
    if pdf.get_string_width(text) <= room:
        return text
    fitting, too_long = 0, len(text)
    while too_long - fitting > 1:
        middle = (fitting + too_long) // 2
        if pdf.get_string_width(text[:middle] + ELLIPSIS) <= room:
            fitting = middle
        else:
            too_long = middle
    while fitting and unicodedata.category(text[fitting])[0] == "M":
        fitting -= 1
    return text[:fitting].rstrip() + ELLIPSIS

"""The paths of the font files."""

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "files"

REGULAR: Final = _FOLDER / "NotoSans-Regular.ttf"
"""Latin, Greek and Cyrillic."""

BOLD: Final = _FOLDER / "NotoSans-Bold.ttf"

FALLBACKS: Final = (
    _FOLDER / "NotoSansHebrew-Regular.ttf",
    _FOLDER / "NotoSansArabic-Regular.ttf",
    _FOLDER / "NotoSansDevanagari-Regular.ttf",
    _FOLDER / "NotoSansBengali-Regular.ttf",
    _FOLDER / "NotoSansTamil-Regular.ttf",
    _FOLDER / "NotoSansThai-Regular.ttf",
    _FOLDER / "NotoSansArmenian-Regular.ttf",
    _FOLDER / "NotoSansGeorgian-Regular.ttf",
    _FOLDER / "wqy-microhei.ttc",
)
"""Fonts of other scripts, in the order in which to search them for a character; the last one is slow to read.

It is a collection whose first font covers Chinese (20,902 characters), Japanese and Korean.
"""

"""The font files: what they cover, and their licences."""

import unicodedata
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]  # -- fontTools ships no types

from tequipy_fonts import BOLD, FALLBACKS, REGULAR

NAMES = {
    "Latin": "Łukasz Đặng Ærøskøbing Ñuñez",
    "Greek": "Ελένη Παπαδοπούλου",
    "Cyrillic": "Ґалина Щёкина",
    "Hebrew": "יוסף בן־דוד",
    "Arabic": "محمد بن عبد الله پژمان",
    "Devanagari": "नरेंद्र मोदी",
    "Bengali": "রবীন্দ্রনাথ ঠাকুর",
    "Tamil": "சுப்பிரமணிய பாரதி",
    "Thai": "สมชาย ใจดี",
    "Armenian": "Արամ Խաչատրյան",
    "Georgian": "შოთა რუსთაველი",
    "Chinese": "王小明 歐陽龍",
    "Japanese": "髙橋さくら タナカ",
    "Korean": "김철수",
}


def characters(path: Path) -> set[int]:
    with TTFont(path, fontNumber=0, lazy=True) as font:
        return set(font.getBestCmap())


@pytest.fixture(scope="module")
def covered() -> set[int]:
    return set().union(*map(characters, (REGULAR, *FALLBACKS)))


@pytest.mark.parametrize("script", NAMES)
def test_names_of_a_script_have_glyphs(script: str, covered: set[int]) -> None:
    """Each character of a name in this script is in one of the fonts."""
    assert [character for character in NAMES[script] if ord(character) not in covered] == []


def test_unified_ideographs_and_hangul_are_complete(covered: set[int]) -> None:
    """All 20,902 ideographs of Unicode 1.1 and all 11,172 Hangul syllables are in one of the fonts."""
    wanted = {*range(0x4E00, 0x9FA6), *range(0xAC00, 0xD7A4)}
    assert [unicodedata.name(chr(code)) for code in sorted(wanted - covered)] == []


def test_bold_covers_what_regular_covers() -> None:
    """A text can be set in bold wherever it can be set in regular."""
    assert characters(BOLD) == characters(REGULAR)


def test_every_file_is_listed_and_has_its_licence_beside_it() -> None:
    """No file is without a path, and the licence of each family is a file of its name."""
    folder = REGULAR.parent
    files = {path for path in folder.iterdir() if path.suffix != ".txt"}
    assert files == {REGULAR, BOLD, *FALLBACKS}
    assert {path.name for path in folder.glob("*.txt")} == {"LICENSE-NotoSans.txt", "LICENSE-wqy-microhei.txt"}
    assert "SIL OPEN FONT LICENSE" in (folder / "LICENSE-NotoSans.txt").read_text(encoding="utf-8")
    assert "Apache License" in (folder / "LICENSE-wqy-microhei.txt").read_text(encoding="utf-8")

"""The PDF of a report: its pages and texts, its fonts, and that nothing leaves its place."""

import hashlib
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from tequipy_fonts import REGULAR
from tequipy_reporting import DailyActivity, Period
from tequipy_reporting.infrastructure.pdf.chart import round_interval
from tequipy_reporting.infrastructure.pdf.document import ActivityDocument, render
from tequipy_reporting.infrastructure.pdf.typesetting import ELLIPSIS, close_fonts, fitting_line

FIRST = date(2026, 1, 1)
REQUESTED_AT = datetime(2026, 11, 27, 3, 40, tzinfo=UTC)
PAPER_EDGE = 10
"""Millimetres in which no printer prints."""
MOST = 2**31 - 1
"""The greatest count that the table of the database holds."""


def document(days: int, name: str = "Ada Lovelace", *, count: int = 7) -> ActivityDocument:
    """Return a document about so many days, in which counts are up to `count`."""
    activity = [
        DailyActivity(
            FIRST + timedelta(days=number),
            registrations=count // 3,
            logins=count * (number % 7 + 1) // 7,
            failed_logins=count // 10,
            active_users=count // 2,
        )
        for number in range(days)
    ]
    period = Period(FIRST, FIRST + timedelta(days=days - 1))
    return ActivityDocument(period=period, requested_by=name, requested_at=REQUESTED_AT, days=activity)


def read(content: bytes) -> PdfReader:
    return PdfReader(BytesIO(content), strict=True)


def texts(reader: PdfReader) -> list[str]:
    return [page.extract_text() for page in reader.pages]


def fonts(reader: PdfReader) -> Iterator[dict[str, Any]]:
    """Yield each font of a document: the descendant of a composite font, whose descriptor may hold a file."""
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():  # type: ignore[index]  # -- pages have fonts
            yield font["/DescendantFonts"][0]


@pytest.mark.parametrize(("days", "pages"), [(1, 1), (14, 1), (31, 2), (366, 10)], ids=str)
def test_each_day_is_a_row_under_a_head(days: int, pages: int) -> None:
    """Every day of the period is a row once, each page has the head of the table and its number."""
    found = texts(read(render(document(days))))
    assert len(found) == pages
    rows = [
        line.split()[0] for text in found for line in text.splitlines() if line.count(" ") == 4 and line[:2] == "20"
    ]
    assert rows == [str(FIRST + timedelta(days=number)) for number in range(days)]
    for number, text in enumerate(found, start=1):
        assert text.count("Day (UTC)") == 1
        assert f"Page {number} of {pages}" in text


def test_the_first_page_has_a_summary() -> None:
    """Title, period, who requested the report and when, totals and the busiest day are on the first page."""
    (page,) = texts(read(render(document(14, count=7000))))
    totals = [f"{14 * 2333:,}", f"{2 * sum(range(1, 8)) * 1000:,}", f"{14 * 700:,}", "3,500"]
    for text in ["User activity", "2026-01-01 to 2026-01-14", "Ada Lovelace", "2026-11-27 03:40 UTC", *totals]:
        assert text in page
    assert "Busiest day: 2026-01-07, 7,000 logins" in page


def test_a_period_without_logins_says_so() -> None:
    """Without any event there are zeros, and no busiest day."""
    (page,) = texts(read(render(document(14, count=0))))
    assert "No logins in this period" in page
    assert "Busiest day" not in page


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Łukasz Đặng Ελένη Щёкина", None),
        ("יוסף בן־דוד", "NotoSansHebrew"),
        ("محمد بن عبد الله", "NotoSansArabic"),
        ("नरेंद्र मोदी", "NotoSansDevanagari"),
        ("สมชาย ใจดี", "NotoSansThai"),
        ("王小明", "WenQuanYi"),
        ("髙橋さくら", "WenQuanYi"),
        ("김철수", "WenQuanYi"),
        ("Ada محمد 王小明 Lovelace", "NotoSansArabic"),
    ],
)
def test_the_fonts_of_a_name_are_embedded(name: str, family: str | None) -> None:
    """Every font is embedded, only those that the name needs, and none of its characters is replaced."""
    content = render(document(1, name))
    reader = read(content)
    embedded = {str(font["/BaseFont"]) for font in fonts(reader)}
    assert all("/FontFile2" in font["/FontDescriptor"] for font in fonts(reader))
    assert family is None or any(family in font for font in embedded), embedded
    assert len(embedded) <= 4
    assert "\N{REPLACEMENT CHARACTER}" not in texts(reader)[0]
    assert len(content) < 100_000


def test_a_character_without_a_glyph_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """A run of emoji becomes one replacement character; no log line names characters of the name."""
    (page,) = texts(read(render(document(1, "Ada 👩\ufe0f😀 Lovelace"))))
    assert "Ada \N{REPLACEMENT CHARACTER} Lovelace" in page
    assert [record for record in caplog.records if record.levelname not in {"INFO", "DEBUG"}] == []


def empty_page() -> FPDF:
    """Return a document with the font of a name, whose `close_fonts` the caller calls."""
    pdf = FPDF()
    pdf.add_font("NotoSans", fname=REGULAR)
    pdf.set_font("NotoSans", size=9.5)
    pdf.set_text_shaping(use_shaping_engine=True)
    return pdf


@pytest.mark.parametrize("joiner", ["", "\u200d", "\u034f"], ids=["none", "ZWJ", "CGJ"])
def test_marks_do_not_pile_up_over_other_lines(joiner: str) -> None:
    """Of the marks on a letter three are drawn, as many as Hebrew needs."""
    pdf = empty_page()
    line = fitting_line(pdf, "Z" + joiner.join("\u0300\u0301\u0302\u0303" * 10) + "algo", 1000)
    assert sum(unicodedata.category(character) == "Mn" for character in line) <= 3
    assert line.endswith("algo")
    for name in ("Ngu\u0302\u0303yen", "\u05e9\u05c1\u05bc\u05b4\u05d9\u05ea", "สิ้น"):
        assert fitting_line(pdf, name, 1000) == name
    close_fonts(pdf)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the texts that will be drawn, each of which must fit into its place on the page."""
    found: list[str] = []
    cell = FPDF.cell

    def draw(pdf: FPDF, w: float, h: float, text: str, **options: Any) -> bool:
        place = w or pdf.w - pdf.r_margin - pdf.x
        shown = text.replace("{nb}", "10")
        assert pdf.get_string_width(shown) <= place - 2 * pdf.c_margin + 0.01, text
        assert PAPER_EDGE <= pdf.x <= pdf.x + place <= pdf.w - PAPER_EDGE, text
        assert PAPER_EDGE <= pdf.y <= pdf.y + h <= pdf.h - PAPER_EDGE, text
        found.append(shown)
        return cell(pdf, w, h, text, **options)

    monkeypatch.setattr(FPDF, "cell", draw)
    return found


@pytest.mark.parametrize("count", [0, 1, MOST], ids=lambda count: f"{count}")
@pytest.mark.parametrize("days", [1, 2, 31, 92, 366])
def test_every_text_fits_into_its_place(days: int, count: int, drawn: list[str]) -> None:
    """No text is wider than its place or leaves the page, whatever the period and the counts."""
    render(document(days, count=count))
    assert len(drawn) > 5 * days


@pytest.mark.parametrize(
    "name",
    ["W" * 100, "محمد بن عبد الله الخوارزمي " * 4, "王小明田中김철수" * 12, f"{'very-long-name' * 17}@example.com"],
    ids=["Latin", "Arabic", "Chinese", "address"],
)
def test_a_long_name_is_shortened(name: str, drawn: list[str]) -> None:
    """A long name ends with an ellipsis before the end of its place."""
    render(document(1, name))
    (shortened,) = (text for text in drawn if text.endswith(ELLIPSIS))
    assert name.startswith(shortened.removesuffix(ELLIPSIS))


LETTERS = "abWÉЖ\u0301 ()12\u05e9\u05c1\u05b8\u05d5\u05d3\u0645\u062d\u062f"
"""Latin, Cyrillic, a mark, Hebrew with points, and Arabic."""


@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])  # shrinking would take minutes
@given(st.text(st.sampled_from(LETTERS), min_size=1, max_size=100), st.floats(10, 150))
def test_a_line_is_never_wider_than_its_place(text: str, width: float) -> None:
    """A text of any scripts fits into its place: as a whole, or its beginning with an ellipsis after a whole letter."""
    pdf = empty_page()
    line = fitting_line(pdf, text, width)
    assert pdf.get_string_width(line) <= width
    printable = fitting_line(pdf, text, 1000)
    kept = line.removesuffix(ELLIPSIS)
    assert printable.startswith(kept)
    assert line == printable or not unicodedata.category(f"{printable[len(kept) :].lstrip()}x"[0]).startswith("M")
    close_fonts(pdf)


@given(st.integers(0, 10**12))
def test_an_axis_has_at_most_five_round_intervals(greatest: int) -> None:
    """Five intervals reach the greatest value, and five of the next smaller round number would not."""
    interval = round_interval(greatest)
    assert interval * 5 >= greatest
    assert str(interval).rstrip("0") in {"1", "2", "5"}
    smaller = interval // 2 if str(interval)[0] in "12" else interval * 2 // 5
    assert interval == 1 or smaller * 5 < greatest


def test_the_same_report_has_the_same_bytes() -> None:
    """Another process writes the same bytes, so that a repeated attempt stores the same file."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import hashlib, test_pdf_document as test\n"
        "print(hashlib.sha256(test.render(test.document(31, sys.argv[2]))).hexdigest())"
    )
    name = "Ada محمد 王小明"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, Path(__file__).parent, name],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {hashlib.sha256(render(document(31, name))).hexdigest()}

"""The document of a user activity report: who asked for what, a summary, a chart, and a table of days."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from tequipy_fonts import BOLD, REGULAR
from tequipy_reporting.domain.activity import DailyActivity
from tequipy_reporting.domain.reports import Period
from tequipy_reporting.infrastructure.pdf.chart import draw_chart
from tequipy_reporting.infrastructure.pdf.colours import FAILED_LOGINS, LOGINS, MUTED, RULE, SHADE, TEXT, Colour
from tequipy_reporting.infrastructure.pdf.typesetting import close_fonts, draw_line

_TITLE: Final = "User activity"
_FAMILY: Final = "NotoSans"
_MARGIN: Final = 18.0
_ROW_HEIGHT: Final = 6.0
_PADDING: Final = 2.0
_CHART_HEIGHT: Final = 66.0
_GAP: Final = 4.0
_COLUMNS: Final = ("Day (UTC)", "Registrations", "Logins", "Failed logins", "Active users")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityDocument:
    """The contents of a report: at least one day, in order."""

    period: Period
    requested_by: str
    requested_at: datetime
    days: Sequence[DailyActivity]


def render(document: ActivityDocument) -> bytes:
    """Return the document as PDF, the same bytes for the same contents; takes up to some seconds."""
    pages = _Pages(document)
    try:
        pages.add_page()
        pages.draw_heading()
        pages.draw_summary()
        pages.draw_chart()
        pages.draw_table()
        return bytes(pages.output())
    finally:
        close_fonts(pages)


class _Pages(FPDF):
    """A4 pages; all lengths are in mm."""

    def __init__(self, document: ActivityDocument) -> None:
        super().__init__(format="A4")
        self._document = document
        self._in_table = False
        period = document.period
        one_day = period.first_day == period.last_day
        self._days = f"{period.first_day}" if one_day else f"{period.first_day} to {period.last_day}"
        self.add_font(_FAMILY, fname=REGULAR)
        self.add_font(_FAMILY, "B", BOLD)
        self.set_margins(_MARGIN, _MARGIN)
        self.set_auto_page_break(auto=True, margin=_MARGIN + 4)
        self.c_margin = 0
        self.set_title(f"{_TITLE}, {self._days}")
        self.set_lang("en")
        # Instead of the current time: a repeated attempt writes the same bytes.
        self.set_creation_date(document.requested_at)

    def header(self) -> None:
        """Repeat the head of the table; called by the library for each page."""
        if self._in_table:
            self._draw_table_head()

    def footer(self) -> None:
        """Number the page; called by the library for each page."""
        self.set_y(3 - _MARGIN)
        self._set_style(8, MUTED)
        # On the left of its cell, because the library replaces `{nb}` after it has aligned the text.
        number_width = self.get_string_width("Page 99 of 99")
        self.cell(self.epw - number_width, 4, f"{_TITLE}, {self._days}")
        self.cell(number_width, 4, f"Page {self.page_no()} of {{nb}}")

    def draw_heading(self) -> None:
        """Write title, period, and who requested the report."""
        self._set_style(20, TEXT, bold=True)
        self.cell(0, 12, _TITLE, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        requested_at = f"{self._document.requested_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        lines = {"Period": self._days, "Requested by": self._document.requested_by, "Requested at": requested_at}
        for label, value in lines.items():
            self._set_style(9.5, MUTED)
            self.cell(30, 6, label)
            self._set_style(9.5, TEXT)
            draw_line(self, value, self.epw - 30, 6)
            self.ln(6)
        self.ln(4)

    def draw_summary(self) -> None:
        """Write the totals in boxes side by side, and the busiest day."""
        days = self._document.days
        figures = {
            "Registrations": sum(day.registrations for day in days),
            "Logins": sum(day.logins for day in days),
            "Failed logins": sum(day.failed_logins for day in days),
            "Peak daily active users": max(day.active_users for day in days),
        }
        width, top = (self.epw - _GAP * (len(figures) - 1)) / len(figures), self.get_y()
        for number, (label, value) in enumerate(figures.items()):
            left = self.l_margin + number * (width + _GAP)
            self.set_fill_color(*SHADE)
            self.rect(left, top, width, 19, style="F", round_corners=True, corner_radius=1.5)
            self.set_xy(left + 3, top + 3)
            self._set_style(8, MUTED)
            self.cell(width - 6, 4, label)
            self.set_xy(left + 3, top + 8)
            self._set_style(12, TEXT, bold=True)
            self.cell(width - 6, 8, f"{value:,}")
        busiest = max(days, key=lambda day: day.logins)
        self.set_xy(self.l_margin, top + 22)
        self._set_style(9.5, TEXT)
        self.cell(
            0,
            6,
            f"Busiest day: {busiest.day}, {busiest.logins:,} logins" if busiest.logins else "No logins in this period",
        )
        self.ln(10)

    def draw_chart(self) -> None:
        """Draw the chart with its heading and legend."""
        top, right = self.get_y(), self.w - self.r_margin
        self._set_style(12, TEXT, bold=True)
        self.cell(80, 7, "Logins per day")
        self._set_style(8, MUTED)
        for label, colour in (("Failed logins", FAILED_LOGINS), ("Logins", LOGINS)):
            left = right - self.get_string_width(label)
            self.set_xy(left, top + 1.5)
            self.cell(right - left, 4, label)
            self.set_fill_color(*colour)
            self.rect(left - 4.5, top + 2, 3, 3, style="F")
            right = left - 9
        draw_chart(self, self._document.days, x=self.l_margin, y=top + 11, width=self.epw, height=_CHART_HEIGHT)
        self.set_xy(self.l_margin, top + 11 + _CHART_HEIGHT + 5)

    def draw_table(self) -> None:
        """Write a row for each day, with the head of the table on each page."""
        self._set_style(12, TEXT, bold=True)
        self.cell(0, 8, "Days", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self._draw_table_head()
        self._in_table = True
        self.set_fill_color(*SHADE)
        for number, day in enumerate(self._document.days):
            if self.will_page_break(_ROW_HEIGHT):
                self.add_page()
            self._set_style(9, TEXT)
            counts = (day.registrations, day.logins, day.failed_logins, day.active_users)
            self._draw_row([f"{day.day}", *(f"{each:,}" for each in counts)], shaded=number % 2 == 1)
        self._in_table = False

    def _draw_table_head(self) -> None:
        self._set_style(9, TEXT, bold=True)
        self._draw_row(_COLUMNS)
        self.set_draw_color(*RULE)
        self.set_line_width(0.3)
        self.line(self.l_margin, self.get_y(), self.w - self.r_margin, self.get_y())

    def _draw_row(self, texts: Sequence[str], *, shaded: bool = False) -> None:
        self.c_margin = _PADDING
        for number, text in enumerate(texts):
            self.cell(self.epw / len(texts), _ROW_HEIGHT, text, align="R" if number else "L", fill=shaded)
        self.c_margin = 0
        self.ln(_ROW_HEIGHT)

    def _set_style(self, size: float, colour: Colour, *, bold: bool = False) -> None:
        self.set_font(_FAMILY, "B" if bold else "", size)
        self.set_text_color(*colour)

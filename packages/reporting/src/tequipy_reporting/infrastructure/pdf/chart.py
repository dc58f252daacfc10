"""The chart of a report: a column for each day, with failed logins above logins."""

from collections.abc import Sequence
from datetime import date
from math import ceil
from typing import Final

from fpdf import FPDF

from tequipy_reporting.domain.activity import DailyActivity
from tequipy_reporting.infrastructure.pdf.colours import FAILED_LOGINS, LOGINS, MUTED, RULE

_AXIS_WIDTH: Final = 20.0
_LABEL_HEIGHT: Final = 6.0
_WIDEST_COLUMN: Final = 12.0
_MOST_INTERVALS: Final = 5
_LABEL_GAP: Final = 1.5
_LABEL_OVERHANG: Final = 4.0
_MANY_DAYS: Final = 92
"""Over more days, only months are labelled."""


def draw_chart(pdf: FPDF, days: Sequence[DailyActivity], *, x: float, y: float, width: float, height: float) -> None:
    """Draw columns for at least one day, a grid with round numbers, and labels; lengths are in mm."""
    left, bottom = x + _AXIS_WIDTH, y + height - _LABEL_HEIGHT
    right, height = x + width, height - _LABEL_HEIGHT
    greatest = max(day.logins + day.failed_logins for day in days)
    interval = round_interval(greatest)
    top = interval * max(1, ceil(greatest / interval))
    pdf.set_font_size(7.5)
    pdf.set_text_color(*MUTED)
    pdf.set_draw_color(*RULE)
    pdf.set_line_width(0.2)
    for value in range(0, top + 1, interval):
        line = bottom - height * value / top
        pdf.line(left, line, right, line)
        pdf.set_xy(x, line - 2)
        pdf.cell(_AXIS_WIDTH - 1, 4, f"{value:,}", align="R")
    step = (right - left) / len(days)
    column = min(step * 0.8, _WIDEST_COLUMN)
    for number, day in enumerate(days):
        column_x = left + step * number + (step - column) / 2
        logins, failed = (height * value / top for value in (day.logins, day.failed_logins))
        for colour, base, length in ((LOGINS, bottom, logins), (FAILED_LOGINS, bottom - logins, failed)):
            if length:
                pdf.set_fill_color(*colour)
                pdf.rect(column_x, base - length, column, length, style="F")
    _label_days(pdf, [day.day for day in days], left, bottom + 1, step)


def round_interval(greatest: int) -> int:
    """Return the least of 1, 2, 5, 10, 20, 50, … of which five reach this value."""
    power = 1
    while 5 * power * _MOST_INTERVALS < greatest:
        power *= 10
    return next(factor * power for factor in (1, 2, 5) if factor * power * _MOST_INTERVALS >= greatest)


def _label_days(pdf: FPDF, days: Sequence[date], left: float, y: float, step: float) -> None:
    """Write as many labels as fit side by side."""
    # The labels of the first and the last day may be wider than their columns.
    free, end = left - _AXIS_WIDTH, left + step * len(days) + _LABEL_OVERHANG
    months = len(days) > _MANY_DAYS
    for number, day in enumerate(days):
        if months and day.day != 1:
            continue
        label = f"{day:%Y-%m}" if months else f"{day:%m-%d}"
        width = pdf.get_string_width(label)
        start = left + step * (number + 0.5) - width / 2
        if start >= free and start + width <= end:
            pdf.set_xy(start, y)
            pdf.cell(width, 4, label)
            free = start + width + _LABEL_GAP

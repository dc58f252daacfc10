"""Shows the results of benchmarks as Markdown tables."""

from collections.abc import Sequence


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table with a title; the first column is left-aligned, figures are right-aligned."""
    print(f"\n### {title}\n\n{markdown_table(columns, rows)}", flush=True)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table.

    Floats are shown with three significant digits or as integers, integers with thousands separators.
    """
    cells = [list(columns), *([_shown(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    rule = ["-" * width + (":" if column else "-") for column, width in enumerate(widths)]
    lines = []
    for number, row in enumerate(cells):
        aligned = [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in _placed(row, widths)]
        lines.append(f"| {' | '.join(aligned)} |\n")
        if number == 0:
            lines.append(f"|{'|'.join('-' + dashes for dashes in rule)}|\n")
    return "".join(lines)


def _placed(row: Sequence[str], widths: Sequence[int]) -> enumerate[tuple[str, int]]:
    return enumerate(zip(row, widths, strict=True))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 -- larger numbers need no decimals
    return f"{value:,}" if isinstance(value, int) else str(value)

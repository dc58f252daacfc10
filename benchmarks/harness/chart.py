"""Draws ratios as horizontal bars with the range of their rounds, as SVG for a README or a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 860
_LABELS: Final = 330
_RIGHT: Final = 70
_ROW: Final = 24
_TITLE: Final = 38
_STYLE: Final = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2937; }
  .title { font-weight: 600; font-size: 14px; }
  .peer { fill: #94a3b8; } .ours { fill: #2563eb; } .range { stroke: #0f172a; stroke-width: 1.2; }
  .base { stroke: #64748b; stroke-dasharray: 3 3; } .sheet { fill: #ffffff; }
"""


@dataclass(frozen=True)
class Bar:
    """One bar: the median and its range."""

    name: str
    low: float
    median: float
    high: float
    ours: bool = False


def draw(charts: Sequence[tuple[str, Sequence[Bar]]], *, description: str) -> str:
    """Return an SVG with a group of bars for each title; a dashed line marks the ratio 1 of each group."""
    parts, top = list[str](), 12
    for title, bars in charts:
        parts.append(f'<text class="title" x="12" y="{top + 16}">{escape(title)}</text>')
        top += _TITLE - 10
        scale = (_WIDTH - _LABELS - _RIGHT) / max(1.0, *(math.ceil(bar.high * 10) / 10 for bar in bars))
        one = _LABELS + scale
        parts.append(f'<line class="base" x1="{one:.1f}" x2="{one:.1f}" y1="{top}" y2="{top + _ROW * len(bars)}"/>')
        for bar in bars:
            parts.append(_bar(bar, top, scale))
            top += _ROW
        top += 14
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'role="img">\n<title>{escape(description)}</title>\n<style>{_STYLE}</style>\n'
        f'<rect class="sheet" width="{_WIDTH}" height="{top}"/>\n{body}\n</svg>\n'
    )


def _bar(bar: Bar, top: float, scale: float) -> str:
    middle, low, high = top + _ROW / 2, _LABELS + bar.low * scale, _LABELS + bar.high * scale
    kind = "ours" if bar.ours else "peer"
    return (
        f'<text x="{_LABELS - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect class="{kind}" x="{_LABELS}" y="{top + 4}" width="{bar.median * scale:.1f}" height="{_ROW - 8}"/>'
        f'<path class="range" fill="none" d="M{low:.1f} {middle - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8"/>'
        f'<text x="{high + 8:.1f}" y="{middle + 4:.1f}">{_shown(bar.median)}</text>'
    )


def _shown(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"  # noqa: PLR2004 -- a small ratio needs its second figure

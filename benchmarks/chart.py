"""Bars in an SVG, drawn by hand: a group for each figure, each to its own scale. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from benchmarks.figures import Rounds, Spread, number
from benchmarks.measured import Measured

COLOURS = ("#3b6fb6", "#d08c2f", "#7a9a5b", "#a45f86", "#777777", "#4aa3a2")
WIDTH, BAR, LEFT = 640, 22, 190


def chart(measured: Measured) -> str:
    """Bars of the medians, thin lines from minimum to maximum."""
    colours = dict(zip(measured.rounds, COLOURS * 3, strict=False))
    parts, y = [], 30
    for figure in measured.figures():
        spreads = _spreads(measured.rounds, figure)
        name = escape(measured.label(figure))
        parts.append(f'<text x="4" y="{y + 14}" font-weight="bold">{name}</text>')
        y += BAR
        longest = max(each.high for each in spreads.values()) or 1.0
        for system, each in spreads.items():
            parts.append(_bar(system, each, longest, y, colours[system]))
            y += BAR
        y += 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 6}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="4" y="18" font-size="14">{escape(measured.title)}</text>{"".join(parts)}</svg>\n'
    )


def _spreads(rounds: Rounds, figure: str) -> Mapping[str, Spread]:
    found = {
        system: [each[figure] for each in figures if figure in each]
        for system, figures in rounds.items()
    }
    return {system: Spread.of(values) for system, values in found.items() if values}


def _bar(system: str, each: Spread, longest: float, y: int, colour: str) -> str:
    scale = (WIDTH - LEFT - 90) / longest
    width = max(1, round(scale * max(0.0, each.mid)))
    low, high = LEFT + round(scale * max(0.0, each.low)), LEFT + round(scale * max(0.0, each.high))
    middle = y + BAR // 2
    return (
        f'<text x="12" y="{y + 14}">{escape(system)}</text>'
        f'<rect x="{LEFT}" y="{y + 3}" width="{width}" height="{BAR - 6}" fill="{colour}"/>'
        f'<path d="M{low} {middle}H{high}" stroke="#222"/>'
        f'<text x="{max(LEFT + width, high) + 6}" y="{y + 14}">{number(each.mid)}</text>'
    )

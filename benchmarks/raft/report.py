"""Figures as a table, as reStructuredText and as bars in an SVG drawn by hand."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

#: (measure, figure) shown as a bar chart of its own.
UNITS = {
    "rate": "a second",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "members_us": "CPU of all members for one, µs",
}
SYSTEMS = ("pbcluster", "etcd", "pysyncobj")
COLOURS = {"pbcluster": "#3b6fb6", "etcd": "#d08c2f", "pysyncobj": "#7a9a5b"}
WIDTH, BAR, LEFT = 640, 22, 190

Rounds = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]


def rows(rounds: Rounds) -> list[tuple[str, ...]]:
    """Measure, figure, each system's median, and the median of the rounds' ratios ours/etcd."""
    table = []
    for measure, systems in rounds.items():
        for figure, unit in UNITS.items():
            found = {
                system: [each[figure] for each in figures if figure in each]
                for system, figures in systems.items()
            }
            shown = [f"{statistics.median(found[s]):,.4g}" if found.get(s) else "" for s in SYSTEMS]
            both = list(zip(found.get("pbcluster", ()), found.get("etcd", ()), strict=False))
            ratio = f"{statistics.median(a / b for a, b in both):.2f}" if both else ""
            table.append((measure, unit, *shown, ratio))
    return table


HEADS = ("measure", "figure", *SYSTEMS, "ours/etcd")


def text_table(table: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[n]) for row in (HEADS, *table)) for n in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (HEADS, *table)
    )


def rst_table(heads: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (heads, *table):
        for number, cell in enumerate(row):
            lines.append(f"   {'* -' if number == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines) + "\n"


def facts(others: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Single figures, flat."""
    found = []
    for measure, figures in others.items():
        told = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
        found.append((measure, told))
    return found


def write_rst(file: Path, rounds: Rounds, others: Mapping[str, Any]) -> None:
    """The tables, and beside them one SVG for each measure."""
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = [rst_table(HEADS, rows(rounds))] if rounds else []
    if others:
        parts.append(rst_table(("measure", "figures"), facts(others)))
    for number, (measure, systems) in enumerate(rounds.items()):
        name = f"raft-{number + 1}.svg"
        (file.parent / name).write_text(chart(measure, systems))
        parts.append(f".. image:: /benchmarks/{name}\n   :alt: {measure}\n")
    file.write_text("\n".join(parts))


def chart(measure: str, systems: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Bars of the medians: a group for each figure, each to its own scale."""
    parts, y = [], 30
    for figure, unit in UNITS.items():
        medians = {
            system: statistics.median(each[figure] for each in found)
            for system in SYSTEMS
            if (found := [f for f in systems.get(system, ()) if figure in f])
        }
        if not medians:
            continue
        parts.append(f'<text x="4" y="{y + 14}" font-weight="bold">{escape(unit)}</text>')
        y += BAR
        longest = max(medians.values()) or 1.0
        for system, value in medians.items():
            width = max(1, round((WIDTH - LEFT - 90) * value / longest))
            parts.append(
                f'<text x="12" y="{y + 14}">{system}</text>'
                f'<rect x="{LEFT}" y="{y + 3}" width="{width}" height="{BAR - 6}" '
                f'fill="{COLOURS[system]}"/>'
                f'<text x="{LEFT + width + 6}" y="{y + 14}">{value:,.4g}</text>'
            )
            y += BAR
        y += 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 6}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="4" y="18" font-size="14">{escape(measure)}</text>{"".join(parts)}</svg>\n'
    )

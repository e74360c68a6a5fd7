"""Figures as text, as reStructuredText, and as bars in an SVG drawn by hand. Pure but for
:func:`write_rst`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import attrs

from benchmarks.gateway.figures import Rounds, Spread, Target, ratios, values_for

#: Figure → how it is told.
UNITS = {
    "cpu_us": "CPU for one request, µs",
    "pocketbase_us": "PocketBase's CPU for one request, µs",
    "rate": "requests a second",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "added_p50_ms": "added p50, ms",
    "added_p99_ms": "added p99, ms",
    "calm_p50_ms": "calm p50, ms",
    "calm_p99_ms": "calm p99, ms",
    "added_calm_p50_ms": "added calm p50, ms",
    "added_calm_p99_ms": "added calm p99, ms",
    "mb_s": "MB a second",
    "cpu_s_gb": "CPU for a gigabyte, s",
    "growth_mb": "growth of memory at its peak, MB",
    "kb_each": "memory for one connection, kB",
    "handshakes": "TLS handshakes a second",
    "cpu_handshake_us": "CPU for one handshake, µs",
    "lookup_us": "a look-up, µs",
}
COLOURS = ("#3b6fb6", "#d08c2f", "#7a9a5b", "#a45f86", "#777777", "#4aa3a2")
WIDTH, BAR, LEFT = 640, 22, 190


@attrs.frozen
class Measured:
    """One measure's figures.

    :ivar name: as ``--only`` takes it. :ivar title: one line.
    :ivar ours: the systems that are this project's.
    :ivar skipped: why it was not made; empty: it was. :ivar notes: what must be known with it.
    :ivar compared: whether all ratios are told, not only those that have targets.
    """

    name: str
    title: str
    rounds: Rounds
    ours: tuple[str, ...] = ("pbcluster",)
    targets: tuple[Target, ...] = ()
    skipped: str = ""
    notes: tuple[str, ...] = ()
    compared: bool = True

    def figures(self) -> list[str]:
        """The figures that any round has, in the order of :data:`UNITS`."""
        found = {name for each in self.rounds.values() for figures in each for name in figures}
        return [name for name in UNITS if name in found]


def number(value: float) -> str:
    """A figure with three or four digits that mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def spread(values: Sequence[float]) -> str:
    """``median (min, max)``; empty without values."""
    if not values:
        return ""
    told = Spread.of(values)
    if told.low == told.high:
        return number(told.mid)
    return f"{number(told.mid)} ({number(told.low)}, {number(told.high)})"


def table(measured: Measured) -> list[tuple[str, ...]]:
    """Heads, then for each figure each system's median (min, max)."""
    systems = list(measured.rounds)
    rows: list[tuple[str, ...]] = [("figure", *systems)]
    for figure in measured.figures():
        cells = (
            spread([each[figure] for each in measured.rounds[system] if figure in each])
            for system in systems
        )
        rows.append((UNITS[figure], *cells))
    return rows


def ratio_table(measured: Measured) -> list[tuple[str, ...]]:
    """Heads, then ours to each other's, of every figure: the rounds' ratios."""
    others = [system for system in measured.rounds if system not in measured.ours]
    ours = [system for system in measured.ours if system in measured.rounds]
    rows: list[tuple[str, ...]] = [("ratio", *others)]
    for mine in ours:
        for figure in measured.figures():
            found = [
                spread(ratios(measured.rounds[mine], measured.rounds[other], figure))
                for other in others
            ]
            if any(found):
                label = UNITS[figure] if len(ours) == 1 else f"{mine}: {UNITS[figure]}"
                rows.append((label, *found))
    return rows if others and len(rows) > 1 else []


def target_table(measured: Measured) -> list[tuple[str, ...]]:
    """Heads, then each target with what was measured and whether it is met by the median."""
    rows: list[tuple[str, ...]] = [("target", "wanted", "median (min, max)", "verdict")]
    for mine in measured.ours:
        for target in measured.targets:
            values = values_for(target, measured.rounds, mine)
            if values:
                beside = f", {mine} to {target.system}" if target.system else f", {mine}"
                verdict = target.verdict(Spread.of(values).mid)
                name = UNITS[target.figure] + beside
                rows.append((name, target.told(), spread(values), verdict))
    return rows if len(rows) > 1 else []


def tables(measured: Measured) -> list[list[tuple[str, ...]]]:
    ratios_ = ratio_table(measured) if measured.compared else []
    found = [table(measured), ratios_, target_table(measured)]
    return [each for each in found if len(each) > 1]


def text(measured: Measured) -> str:
    """For a terminal."""
    parts = [f"== {measured.name}: {measured.title}"]
    if measured.skipped:
        parts.append(f"skipped: {measured.skipped}")
    parts += [_aligned(each) for each in tables(measured)]
    parts += [f"note: {note}" for note in measured.notes]
    return "\n\n".join(parts)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def rst_table(rows: Sequence[Sequence[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for at, cell in enumerate(row):
            lines.append(f"   {'* -' if at == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines) + "\n"


def rst(measured: Measured, image: str = "") -> str:
    """A section's content, led by its title in bold.

    :param image: file name of its chart; empty: none.
    """
    parts = [f"**{measured.title}**\n"]
    if measured.skipped:
        parts.append(f"Not measured: {measured.skipped}.\n")
    parts += [rst_table(each) for each in tables(measured)]
    parts += [f"{note}\n" for note in measured.notes]
    if image:
        parts.append(f".. image:: /benchmarks/{image}\n   :alt: {measured.title}\n")
    return "\n".join(parts)


def write_rst(file: Path, everything: Sequence[Measured], told: str) -> None:
    """The tables, and beside them one SVG for each measure.

    :param told: of the run itself: rounds, seconds, versions.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"{told}\n"]
    for measured in everything:
        image = ""
        if measured.figures():
            image = f"gateway-{measured.name}.svg"
            (file.parent / image).write_text(chart(measured))
        parts.append(rst(measured, image))
    file.write_text("\n".join(parts))


def chart(measured: Measured) -> str:
    """Bars of the medians, thin lines from minimum to maximum: a group for each figure, each to its
    own scale."""
    colours = dict(zip(measured.rounds, COLOURS * 3, strict=False))
    parts, y = [], 30
    for figure in measured.figures():
        spreads = _spreads(measured.rounds, figure)
        parts.append(f'<text x="4" y="{y + 14}" font-weight="bold">{escape(UNITS[figure])}</text>')
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

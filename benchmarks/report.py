"""Measures as tables: of the systems, of their ratios, of the targets; for terminals and as
reStructuredText. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Spread, ratios, spread, values_for
from benchmarks.measured import Measured

Table = list[tuple[str, ...]]


def table(measured: Measured) -> Table:
    """Heads, then for each figure each system's median (min, max)."""
    systems = list(measured.rounds)
    rows: Table = [("figure", *systems)]
    for figure in measured.figures():
        cells = (
            spread([each[figure] for each in measured.rounds[system] if figure in each])
            for system in systems
        )
        rows.append((measured.label(figure), *cells))
    return rows


def ratio_table(measured: Measured) -> Table:
    """Heads, then ours to each other's, of every figure: the rounds' ratios."""
    others = [system for system in measured.rounds if system not in measured.ours]
    ours = [system for system in measured.ours if system in measured.rounds]
    rows: Table = [("ratio", *others)]
    for mine in ours:
        for figure in measured.figures():
            found = [
                spread(ratios(measured.rounds[mine], measured.rounds[other], figure))
                for other in others
            ]
            if any(found):
                label = measured.label(figure)
                rows.append((label if len(ours) == 1 else f"{mine}: {label}", *found))
    return rows if others and len(rows) > 1 else []


def target_table(measured: Measured) -> Table:
    """Heads, then each target with what was measured and whether it is met by the median."""
    rows: Table = [("target", "wanted", "median (min, max)", "verdict")]
    for mine in measured.ours:
        for target in measured.targets:
            values = values_for(target, measured.rounds, mine)
            if values:
                beside = f", {mine} to {target.system}" if target.system else f", {mine}"
                verdict = target.verdict(Spread.of(values).mid)
                name = measured.label(target.figure) + beside
                rows.append((name, target.told(), spread(values), verdict))
    return rows if len(rows) > 1 else []


def tables(measured: Measured) -> list[Table]:
    """Those of the three that say anything."""
    ratios_ = ratio_table(measured) if measured.compared else []
    found = [table(measured), ratios_, target_table(measured)]
    return [each for each in found if len(each) > 1]


def text(measured: Measured) -> str:
    """For a terminal."""
    parts = [f"== {measured.name}: {measured.title}"]
    if measured.skipped:
        parts.append(f"skipped: {measured.skipped}")
    parts += [aligned(each) for each in tables(measured)]
    parts += [f"note: {note}" for note in measured.notes]
    return "\n\n".join(parts)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def rst_table(rows: Sequence[Sequence[str]]) -> str:
    """A table for the documentation; its first row is its head."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for at, cell in enumerate(row):
            lines.append(f"   {'* -' if at == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines) + "\n"

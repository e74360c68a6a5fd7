"""What was measured, as docs/benchmarks/data/PART.json keeps it, and the pages drawn from it.

A part's file is a list of :class:`Kept`, one a measure, in the order of
:mod:`benchmarks.commands`; a new run replaces the measures that it made and no other. :func:`draw`
makes docs/benchmarks/PART.inc and its charts from the file, and :func:`summary` one table of all
targets; a test holds the pages against the files, so no figure is written by hand. What was
measured before there were files was carried over cell by cell: ``tables`` without ``measured``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks import measured as measures
from benchmarks.chart import chart
from benchmarks.figures import Spread, spread, values_for
from benchmarks.measured import Measured
from benchmarks.report import Table, rst_table, tables
from benchmarks.stories import overview

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks"


@attrs.frozen(kw_only=True)
class Aim:
    """A target and what came of it.

    :ivar cause: why it was not reached, as far as it is known.
    """

    figure: str
    wanted: str
    measured: str
    reached: bool
    cause: str = ""


@attrs.frozen(kw_only=True)
class Kept:
    """One measure with all that must be known to repeat it.

    :ivar date: day of the run. :ivar command: what a user types.
    :ivar versions: program → its version. :ivar measured: the figures; None: carried over.
    :ivar tables: of what was carried over, heads first. :ivar image: its chart, if there is one.
    """

    name: str
    title: str
    command: str
    date: str
    machine: str
    versions: Mapping[str, str] = attrs.field(factory=dict)
    aims: tuple[Aim, ...] = ()
    measured: Measured | None = None
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    image: str = ""


def aims(measured: Measured) -> tuple[Aim, ...]:
    """Every target that was measured, judged by the median of the rounds."""
    found = []
    for mine in measured.ours:
        for target in measured.targets:
            values = values_for(target, measured.rounds, mine)
            if values:
                reached = target.met(Spread.of(values).mid)
                beside = f", ratio to {target.system}" if target.system else ""
                of = "" if mine == "pbcluster" else f", {mine}"
                found.append(
                    Aim(
                        figure=measured.label(target.figure) + of + beside,
                        wanted=target.told(),
                        measured=spread(values),
                        reached=reached,
                        cause="" if reached else target.cause,
                    )
                )
    return tuple(found)


def keep(
    part: str, measured: Measured, *, command: str, date: str, machine: str, versions: Any
) -> Kept:
    """A measure that was made just now."""
    drawn = len(measured.rounds) > 1 and bool(measured.figures())
    return Kept(
        name=measured.name,
        title=measured.title,
        command=command,
        date=date,
        machine=machine,
        versions=versions,
        aims=aims(measured),
        measured=measured,
        notes=measured.notes,
        image=f"{part}-{measured.name}.svg" if drawn else "",
    )


# -- files ----------------------------------------------------------------------------------------


def load(file: Path) -> list[Kept]:
    """A part's measures; none if there is no file."""
    if not file.exists():
        return []
    return [_from_json(each) for each in json.loads(file.read_text(encoding="utf-8"))]


def _from_json(content: dict[str, Any]) -> Kept:
    measured = content.pop("measured")
    content["tables"] = tuple([tuple(r) for r in table] for table in content["tables"])
    content["aims"] = tuple(Aim(**aim) for aim in content["aims"])
    content["notes"] = tuple(content["notes"])
    return Kept(**content, measured=measures.from_json(measured) if measured else None)


def merge(file: Path, fresh: Iterable[Kept], order: Sequence[str]) -> list[Kept]:
    """Replace the measures of the same names in a part's file.

    :param order: names in the part's order; others follow as they came.
    """
    found = {each.name: each for each in [*load(file), *fresh]}
    ranks = {name: rank for rank, name in enumerate(order)}
    kept = sorted(found.values(), key=lambda each: ranks.get(each.name, len(ranks)))
    file.parent.mkdir(parents=True, exist_ok=True)
    content = [attrs.asdict(each) for each in kept]
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
    return kept


# -- pages ----------------------------------------------------------------------------------------


def draw(part: str, kept: Sequence[Kept]) -> dict[str, str]:
    """File name → content: the part's page and its charts."""
    files: dict[str, str] = {}
    parts = [overview(kept)] if part == "chaos" else []
    for each in kept:
        parts.append(_section(each))
        if each.image and each.measured is not None:
            files[each.image] = chart(each.measured)
    files[f"{part}.inc"] = "\n".join(parts)
    return files


def _section(kept: Kept) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in kept.versions.items())
    told = ". ".join(filter(None, [kept.date, kept.machine, versions]))
    parts = [f"**{kept.title}**\n", f"``{kept.command}``\n   {told}.\n"]
    if kept.measured is not None and kept.measured.skipped:
        parts.append(f"Not measured: {kept.measured.skipped}.\n")
    shown = kept.tables if kept.measured is None else tuple(tables(kept.measured))
    parts += [rst_table(each) for each in shown]
    parts += [f"{note}\n" for note in kept.notes]
    if kept.image:
        parts.append(f".. image:: /benchmarks/{kept.image}\n   :alt: {kept.title}\n")
    return "\n".join(parts)


def summary(parts: Mapping[str, Sequence[Kept]]) -> str:
    """One table of all targets of all parts, with what is known of those that are not reached."""
    rows: Table = [("part", "figure", "target", "measured", "reached", "date")]
    missed = []
    for part, kept in parts.items():
        for each in kept:
            for aim in each.aims:
                name = f"{each.title}: {aim.figure}"
                reached = "yes" if aim.reached else "**no**"
                rows.append((part, name, aim.wanted, aim.measured, reached, each.date))
                if not aim.reached:
                    missed.append(f"* {name}: {aim.cause or 'the cause is not known'}.")
    text = rst_table(rows)
    if missed:
        text += "\nWhat is not reached, and why:\n\n" + "\n".join(missed) + "\n"
    return text


def write(directory: Path, files: Mapping[str, str]) -> None:
    """Write pages and charts."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_text(content, encoding="utf-8")

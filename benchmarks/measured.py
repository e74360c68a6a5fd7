"""One measure's figures, their names for readers, and their form in JSON.

Every benchmark command gives back :class:`Measured` and writes a list of them with ``--json FILE``;
:mod:`benchmarks.kept` keeps them with machine, versions and date. Pure but for :func:`write`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.figures import Figures, Rounds, Target

#: Figure → how it is told, where the measure itself says nothing else.
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


@attrs.frozen
class Measured:
    """One measure's figures.

    :ivar name: unique within its part. :ivar title: one line.
    :ivar ours: the systems that are this project's, and that targets judge.
    :ivar skipped: why it was not made; empty: it was. :ivar notes: what must be known with it.
    :ivar compared: whether all ratios are told, not only those that have targets.
    :ivar labels: figure → how it is told; before :data:`UNITS`.
    """

    name: str
    title: str
    rounds: Rounds
    ours: tuple[str, ...] = ("pbcluster",)
    targets: tuple[Target, ...] = ()
    skipped: str = ""
    notes: tuple[str, ...] = ()
    compared: bool = True
    labels: Mapping[str, str] = attrs.field(factory=dict)

    def figures(self) -> list[str]:
        """Those that any round has: those of :data:`UNITS` in its order, then as they came."""
        found = dict.fromkeys(
            name for each in self.rounds.values() for figures in each for name in figures
        )
        return [name for name in UNITS if name in found] + [n for n in found if n not in UNITS]

    def label(self, figure: str) -> str:
        """How a figure is told to readers."""
        return self.labels.get(figure) or UNITS.get(figure, figure)


def alone(
    name: str,
    title: str,
    rounds: Sequence[Figures],
    targets: tuple[Target, ...] = (),
    *,
    labels: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Measured:
    """A measure with no system beside ours."""
    return Measured(
        name, title, {"pbcluster": list(rounds)}, targets=targets, notes=notes, labels=labels or {}
    )


def to_json(measured: Measured) -> dict[str, Any]:
    """As JSON takes it."""
    return attrs.asdict(measured)


def from_json(content: Mapping[str, Any]) -> Measured:
    """What :func:`to_json` gave. :raises TypeError, KeyError: it is something else."""
    return Measured(
        **{
            **content,
            "ours": tuple(content["ours"]),
            "targets": tuple(Target(**each) for each in content["targets"]),
            "notes": tuple(content["notes"]),
        }
    )


def write(file: Path | None, everything: Sequence[Measured]) -> None:
    """Write them where ``--json`` said; without it nothing happens."""
    if file is not None:
        file.write_text(json.dumps([to_json(each) for each in everything], indent=1))


def read(file: Path) -> list[Measured]:
    """What :func:`write` wrote."""
    return [from_json(each) for each in json.loads(file.read_text())]

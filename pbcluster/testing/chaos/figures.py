"""The figures of one round and of many. Pure.

A *gap* of a kind of request is the longest time without a good answer to any client, from a fault
on: what a user waited at worst.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import attrs

from pbcluster.testing.chaos.history import LOOK, READ, WRITES, History, Operation


def longest_gap_s(
    operations: Iterable[Operation], since_s: float, until_s: float = math.inf
) -> float:
    """The longest time without a good answer, the first beginning at ``since_s``.

    :returns: infinity if there was none after it.
    """
    ends = sorted(o.ended_s for o in operations if o.good and since_s < o.ended_s <= until_s)
    return max((b - a for a, b in pairwise([since_s, *ends])), default=math.inf)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed. Not of none."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def round_figures(history: History, fault_s: float) -> dict[str, float]:
    """Of one round, seconds and numbers, under the names that limits use.

    :param fault_s: when the (first) fault was.
    """
    writes, reads = history.of(*WRITES), history.of(LOOK, READ)
    figures = {"failed_writes": float(sum(not each.good for each in writes))}
    figures["failed_reads"] = float(sum(not each.good for each in reads))
    kinds = {"write": writes, "read": reads}
    kinds |= {kind: history.of(kind) for kind in ("admin", "lookup")}
    for kind, operations in kinds.items():
        if operations:
            figures[f"{kind}_gap_s"] = longest_gap_s(operations, fault_s)
            during = [each.took_s for each in operations if each.ended_s > fault_s]
            figures[f"longest_{kind}_s"] = max(during, default=0.0)
    return figures


@attrs.frozen
class Spread:
    """Of many rounds."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Not of none."""
        return cls(*(round(quantile(values, q), 3) for q in (0.5, 0.99, 1.0)))


@attrs.frozen
class Limit:
    """What a figure may be. Infinity: whatever it is.

    :ivar figure: its name in :func:`round_figures`, or one of the story's own.
    """

    figure: str
    p50: float = math.inf
    p99: float = math.inf
    max: float = math.inf

    def missed(self, rounds: Sequence[Mapping[str, float]]) -> str:
        """Which part of it was not reached; empty: it was, or was not measured."""
        values = [each[self.figure] for each in rounds if self.figure in each]
        if not values:
            return ""
        spread = Spread.of(values)
        over = [
            f"{name} {getattr(spread, name)} over {getattr(self, name)}"
            for name in ("p50", "p99", "max")
            if getattr(spread, name) > getattr(self, name)
        ]
        return f"{self.figure}: {', '.join(over)}" if over else ""


def spreads(rounds: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Figure → its spread over all rounds that have it."""
    names = {name for each in rounds for name in each}
    return {
        name: Spread.of([each[name] for each in rounds if name in each]) for name in sorted(names)
    }

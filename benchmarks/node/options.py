"""What all measures of a node are told, and what each of them gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from benchmarks.gateway.figures import Figures, Spread, Target


@attrs.frozen(kw_only=True)
class Options:
    """
    :ivar seconds: of each load. :ivar requests: of each way, one after the other.
    :ivar watch_s: how long idle processes are watched. :ivar large: also a database of 1 GB.
    :ivar tell: called with each line of progress.
    """

    rounds: int
    seconds: float
    requests: int
    tenants: int
    wakes: int
    watch_s: float
    large: bool
    tell: Callable[[str], object]


@attrs.frozen
class Part:
    """One measure: the figures of each round, and what they should be."""

    title: str
    rounds: Sequence[Figures]
    targets: tuple[Target, ...]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Figure, its median (minimum, maximum), its target, the verdict."""
        targets = {target.figure: target for target in self.targets}
        rows = []
        for figure in dict.fromkeys(name for each in self.rounds for name in each):
            spread = Spread.of([each[figure] for each in self.rounds if figure in each])
            told = f"{spread.mid:.4g}"
            if len(self.rounds) > 1:
                told += f" ({spread.low:.4g}, {spread.high:.4g})"
            target = targets.get(figure)
            rows.append(
                (
                    figure,
                    told,
                    "" if target is None else target.told(),
                    "" if target is None else target.verdict(spread.mid),
                )
            )
        return rows

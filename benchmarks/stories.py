"""Fault stories as measures: what ``make chaos`` tells with ``--json`` becomes rows of the page.

Rounds of one story in several runs count together, and so do those of a family that has one figure
(``cut-plane-…``). Each measure has one round of figures, since a story's limits are about the
median, the 99th percentile and the worst of its own rounds. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from benchmarks.figures import Figures, Target, number
from benchmarks.measured import Measured, alone
from benchmarks.report import Table, rst_table
from pbcluster.testing.chaos.figures import Limit, spreads
from pbcluster.testing.chaos.judge import KINDS
from pbcluster.testing.chaos.story import Story

if TYPE_CHECKING:
    from benchmarks.kept import Kept

#: Of a family's stories one measure is made: its name → its title.
FAMILIES = {
    "cut-plane": "A node is cut off from the control plane only",
    "cut-s3": "A node is cut off from S3 only",
    "cut-gateways": "A node is cut off from the gateways only",
    "cut-all": "A node is cut off from all of them",
    "kernel": "A node is cut off by the kernel's network, in a namespace of its own",
}
#: Story → figure → what it must be at least, so that its other figures mean what was asked.
AT_LEAST: Mapping[str, Mapping[str, float]] = {
    "node-kill": {"rounds": 100},
    "leader-kill": {"rounds": 100},
    "plane-dead": {"away": 600},
    "s3-away": {"away": 60},
    "s3-away-reject": {"away": 60},
    "migration": {"rounds": 50},
    "drain": {"tenants": 50},
    "random": {"rounds": 20},
}
_BUSY = (
    "most of a pause is the start of two processes on the target, on two cores that 50 used "
    "tenants and their clients share"
)
_BUSY_KILL = (
    "for 2 s of it the dead node's lease could still prove; the rest are suspicion, claim, restore "
    "and the start of two processes, and the machine had several times the work of its cores "
    "meanwhile"
)
_BUSY_MOVE = (
    "nine tenths of a pause are the start of two processes on the target, and the machine had "
    "several times the work of its cores meanwhile; *50 moves of a small tenant*, taken under less "
    "load, reached it"
)
#: (measure, figure without its quantile) → what is known to stand in its way.
CAUSES: Mapping[tuple[str, str], str] = {
    ("node-kill", "write_gap_s"): _BUSY_KILL,
    ("migration", "longest_write_s"): _BUSY_MOVE,
    ("migration", "longest_read_s"): _BUSY_MOVE,
    ("drain", "longest_write_s"): _BUSY,
    ("drain", "longest_read_s"): _BUSY,
}

_NAMES = {
    "write_gap_s": "longest time without a good write",
    "read_gap_s": "longest time without a good read",
    "admin_gap_s": "longest time without a good answer of the admin API",
    "lookup_gap_s": "longest time without a good look-up of a route",
    "longest_write_s": "longest write",
    "longest_read_s": "longest read",
    "longest_admin_s": "longest request to the admin API",
    "longest_lookup_s": "longest look-up",
    "all_in_s3_s": "from the return of S3 until all is in it",
    "serving_s": "from the kills until all tenants answer",
    "restart_s": "the whole restart",
    "drain_s": "the whole drain",
    "move_s": "the whole move",
    "first_answer_s": "first answer after the creation",
    "read_p50_s": "reads, p50 of a round",
    "read_p99_s": "reads, p99 of a round",
}
_COUNTS = {
    "rounds": "rounds",
    "away": "the shortest outage, s",
    "tenants": "tenants",
    "acknowledged": "writes acknowledged",
    "reads": "reads",
    "probes": "answers of nodes that were asked directly",
    "failed_requests": "requests of tenants without a good answer",
    "broken": "broken promises",
    "unfinished": "rounds that did not come to their end",
    "load_p50": "load average of the machine, p50 of the rounds",
    "load_max": "load average of the machine, at most",
}
_PROMISES = {
    "lost": "acknowledged writes lost",
    "doubled": "writes doubled",
    "torn": "rows or transactions torn",
    "invented": "rows that nobody wrote",
    "stale": "stale reads",
    "backwards": "reads that went backwards",
    "owners": "moments with two answering owners",
    "failed": "requests that failed though the story does not permit it",
    "damaged": "damaged replicas",
}
_QUANTILES = {"p50": "p50", "p99": "p99", "max": "at most"}
#: What stands in ``each`` and is no time.
_NO_TIMES = frozenset(("load", "away_s", "tenants", "failed_writes", "failed_reads"))


@attrs.define
class Tally:
    """A story, or a family of them, over all runs."""

    name: str
    title: str
    wanted: str
    stories: list[str] = attrs.field(factory=list)
    each: list[dict[str, float]] = attrs.field(factory=list)
    counts: dict[str, int] = attrs.field(factory=dict)
    broken: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(KINDS, 0))
    told: list[str] = attrs.field(factory=list)

    def add(self, shown: Mapping[str, Any]) -> None:
        """Another run of it."""
        self.stories.append(shown["story"])
        self.each += shown["each"]
        self.told += shown["told"]
        names = ("rounds", "unfinished", "acknowledged", "reads", "probes", "failed_requests")
        for name in names:
            self.counts[name] = self.counts.get(name, 0) + shown[name]
        for kind, count in shown["broken"].items():
            self.broken[kind] += count

    def figures(self) -> Figures:
        """All that is told of it."""
        found: dict[str, float] = {"rounds": self.counts["rounds"]}
        for name, least in (("away_s", "away"), ("tenants", "tenants")):
            values = [each[name] for each in self.each if name in each]
            if values:
                found[least] = min(values)
        for name, spread in spreads(self.each).items():
            if name not in _NO_TIMES:
                found |= {f"{name}_{q}": getattr(spread, q) for q in _QUANTILES}
        found |= {name: count for name, count in self.counts.items() if name != "rounds"}
        found |= self.broken
        found["broken"] = sum(self.broken.values()) + self.counts["unfinished"]
        load = spreads(self.each).get("load")
        return found | ({"load_p50": load.p50, "load_max": load.max} if load else {})

    def measured(self, stories: Mapping[str, Story]) -> Measured:
        """As the other benchmarks tell what they measured."""
        figures = self.figures()
        notes = [f"Wanted: {self.wanted}."]
        variants = sorted({each.removeprefix(f"{self.name}-") for each in self.stories})
        if self.name in FAMILIES:
            notes.append(f"Stories: {', '.join(variants)}.")
        notes += [f"Broken: ``{line[:200]}``" for line in self.told[:5]]
        return alone(
            self.name,
            self.title,
            [figures],
            tuple(self._targets(figures, stories)),
            labels={name: label(name) for name in figures},
            notes=tuple(notes),
        )

    def _targets(self, figures: Figures, stories: Mapping[str, Story]) -> Iterable[Target]:
        yield self._target("broken", 0.0)
        permits = [stories[name].permits for name in self.stories]
        if not any(each.writes or each.reads for each in permits):
            yield self._target("failed_requests", 0.0)
        limits = dict.fromkeys(limit for name in self.stories for limit in stories[name].limits)
        for limit in limits:
            yield from self._limits(limit, figures)
        for name, least in AT_LEAST.get(self.name, {}).items():
            yield attrs.evolve(self._target(name, least), at_most=False)

    def _limits(self, limit: Limit, figures: Figures) -> Iterable[Target]:
        for quantile in _QUANTILES:
            bound, name = getattr(limit, quantile), f"{limit.figure}_{quantile}"
            if bound != float("inf") and name in figures:
                yield self._target(name, bound, limit.figure)

    def _target(self, figure: str, bound: float, of: str = "") -> Target:
        return Target(figure, "", bound, cause=CAUSES.get((self.name, of or figure), ""))


def label(figure: str) -> str:
    """How a figure is told to readers."""
    if figure in _COUNTS or figure in _PROMISES:
        return (_COUNTS | _PROMISES)[figure]
    name, _, quantile = figure.rpartition("_")
    named = _NAMES.get(name, name.removesuffix("_s").replace("_", " "))
    return f"{named}, {_QUANTILES.get(quantile, quantile)}, s"


def family(name: str) -> str:
    """The measure in which a story stands."""
    return next((each for each in FAMILIES if name.startswith(f"{each}-")), name)


def tallies(runs: Iterable[Mapping[str, Any]]) -> list[Tally]:
    """One a story or family, in the order of their first runs; of those that were played."""
    found: dict[str, Tally] = {}
    for run in runs:
        for shown in run["stories"]:
            if shown["rounds"]:
                name = family(shown["story"])
                title = FAMILIES.get(name, shown["title"].rstrip("."))
                found.setdefault(name, Tally(name, title, shown["wanted"])).add(shown)
    return list(found.values())


# -- the page -------------------------------------------------------------------------------------


def overview(kept: Sequence[Kept]) -> str:
    """One row a story: what was asked, what came of it, how often, and whether it is reached."""
    rows: Table = [("story", "asked and measured", "rounds", "load", "reached", "date")]
    for each in kept:
        told = [f"{aim.figure} {aim.wanted}: **{aim.measured}**" for aim in each.aims]
        figures = each.measured.rounds["pbcluster"][0] if each.measured else {}
        counts = f"{number(figures.get('acknowledged', 0))} writes, "
        counts += f"{number(figures.get('reads', 0))} reads"
        loads = [number(figures[name]) for name in ("load_p50", "load_max") if name in figures]
        missed = [aim.figure for aim in each.aims if not aim.reached]
        rows.append(
            (
                f"{each.name}: {each.title}",
                "; ".join([*told, counts]),
                number(figures.get("rounds", 0)),
                ", at most ".join(loads),
                f"**no**: {', '.join(missed)}" if missed else "yes",
                each.date,
            )
        )
    return rst_table(rows)

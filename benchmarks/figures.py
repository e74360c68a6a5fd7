"""Pure: what tools print becomes numbers, numbers become ratios, ratios meet targets."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence

import attrs

#: One system under one load in one round: figure → value.
Figures = Mapping[str, float]
#: System → its figures, round after round.
Rounds = Mapping[str, Sequence[Figures]]

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@attrs.frozen
class Load:
    """What a load generator told.

    :ivar requests: answers with a 2xx or 3xx status. :ivar failed: everything else.
    :ivar p50_s, p99_s: of the answers.
    """

    requests: int
    seconds: float
    failed: int
    p50_s: float
    p99_s: float


def parse_wrk(text: str) -> Load:
    """The output of ``wrk --latency``.

    :raises ValueError: it is something else.
    """
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h),", text)
    latencies = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+(?:us|ms|s|m|h))\s*$", text, re.MULTILINE))
    if total is None or set(latencies) != {"50", "99"}:
        raise ValueError(f"no output of wrk --latency: {text[:500]!r}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    refused = int(bad[1]) if bad else 0
    broken = re.search(r"Socket errors: (.*)", text)
    failed = refused + (sum(map(int, re.findall(r"\d+", broken[1]))) if broken else 0)
    seconds = float(total[2]) * _UNITS_S[total[3]]
    p50_s, p99_s = duration_s(latencies["50"]), duration_s(latencies["99"])
    return Load(int(total[1]) - refused, seconds, failed, p50_s, p99_s)


def duration_s(text: str) -> float:
    """Seconds of a duration as wrk writes it (``1.25ms``). :raises ValueError: it is none."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m|h)", text)
    if found is None:
        raise ValueError(f"{text!r} is no duration")
    return float(found[1]) * _UNITS_S[found[2]]


def parse_stat_ticks(text: str) -> int:
    """User and system time of a process and its threads, in clock ticks (proc_pid_stat(5)).

    :param text: content of ``/proc/PID/stat``; the command's name may hold spaces and brackets.
    """
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def parse_status_kb(text: str, name: str) -> int:
    """A size of ``/proc/PID/status``, such as VmRSS, in kB. :raises ValueError: it is not there."""
    found = re.search(rf"^{re.escape(name)}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no {name} in the status of a process")
    return int(found[1])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of ``values`` do not exceed."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


@attrs.frozen
class Spread:
    """Minimum, median and maximum of the rounds."""

    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """:raises ValueError: there are none."""
        if not values:
            raise ValueError("no values")
        return cls(min(values), statistics.median(values), max(values))


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


def ratios(ours: Sequence[Figures], other: Sequence[Figures], figure: str) -> list[float]:
    """Ours to the other's, round by round; rounds that lack one of them are left out."""
    return [
        mine[figure] / theirs[figure]
        for mine, theirs in zip(ours, other, strict=False)
        if figure in mine and theirs.get(figure)
    ]


@attrs.frozen
class Target:
    """What a ratio or a figure should be.

    :ivar system: what stands on the other side of the ratio; empty: the figure itself counts.
    :ivar at_most: whether ``bound`` is an upper one.
    :ivar stretch: a bound that would be better still.
    :ivar cause: what is known to stand in its way; told where it is missed.
    """

    figure: str
    system: str
    bound: float
    at_most: bool = True
    stretch: float | None = None
    cause: str = ""

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def stretched(self, value: float) -> bool:
        if self.stretch is None:
            return False
        return value <= self.stretch if self.at_most else value >= self.stretch

    def told(self) -> str:
        sign = "≤" if self.at_most else "≥"
        better = "" if self.stretch is None else f" (better: {sign} {self.stretch:g})"
        return f"{sign} {self.bound:g}{better}"

    def verdict(self, value: float) -> str:
        if self.stretched(value):
            return "pass, the better one too"
        return "pass" if self.met(value) else "MISS"


def values_for(target: Target, rounds: Rounds, ours: str) -> list[float]:
    """What ``target`` judges: the ratios of the rounds, or our own figures."""
    mine = rounds.get(ours, ())
    if target.system:
        return ratios(mine, rounds.get(target.system, ()), target.figure)
    return [each[target.figure] for each in mine if target.figure in each]

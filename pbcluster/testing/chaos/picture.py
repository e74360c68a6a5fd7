"""A round as a picture: an SVG that any browser shows. Pure.

From above: what happened (red: a fault, green: its end), with its moment; for writes, reads and,
where there are any, the control plane, one row each of answers (grey bars: how many in each slice
of time; red: how many of these failed) and one of how long they took (each answer a dot, on a
logarithmic scale); then for each node when it answered for a tenant. Time is in seconds from the
first request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from pbcluster.testing.chaos.history import (
    ADMIN,
    LOOK,
    LOOKUP,
    READ,
    WRITES,
    Event,
    History,
    Operation,
)

WIDTH, LEFT, RIGHT, ROW, GAP = 1130, 120, 20, 70, 14
SLICES = 200
#: An event's text takes so much; those that would overlap stand on different lines.
CHARACTER, LINE, MAX_LINES = 6.4, 15, 12
#: The logarithmic scale of latencies, in seconds.
FASTEST_S, SLOWEST_S = 0.001, 60.0
#: So many dots at most a row, evenly chosen but for failures: a picture must stay small.
MAX_DOTS = 4000
GROUPS = (("writes", tuple(WRITES)), ("reads", (LOOK, READ)), ("control plane", (ADMIN, LOOKUP)))
_STYLE = (
    "text{font:11px sans-serif;fill:#333}.t{font:bold 14px sans-serif}.g{fill:#b9c4d0}"
    ".b{fill:#d03b3b}.ok{fill:#3b6fb6;fill-opacity:.45}.f{stroke:#d03b3b}.h{stroke:#3c9a4f}"
    ".a{stroke:#ddd}.frame{fill:none;stroke:#bbb}"
)


def draw(history: History, title: str, subtitle: Sequence[str] = ()) -> str:
    """The whole picture.

    :param subtitle: lines below the title: figures, broken promises.
    """
    operations = sorted(history.operations, key=lambda each: each.begun_s)
    moments = [each.begun_s for each in operations] + [each.at_s for each in history.events]
    start = min(moments, default=0.0)
    ends = [each.ended_s for each in operations] + [each.at_s for each in history.events]
    span = max(max(ends, default=start) - start, 0.001)
    scale = (WIDTH - LEFT - RIGHT) / span

    def x(at_s: float) -> float:
        return LEFT + (at_s - start) * scale

    parts: list[str] = [_text(LEFT, 20, title, "t")]
    y = 36.0
    for line in subtitle:
        parts.append(_text(LEFT, y, line))
        y += LINE
    top = y
    labels, y = _events(history.events, x, start, y)
    for name, kinds in GROUPS:
        group = [each for each in operations if each.kind in kinds and not each.node]
        if group:
            parts += _counts(group, name, y, start, span, x)
            parts += _latencies(group, name, y + ROW + GAP, x)
            y += 2 * (ROW + GAP)
    for node in sorted({each.node for each in operations if each.node}):
        parts += _answers([each for each in operations if each.node == node], node, y, x)
        y += 26
    parts += _lines(history.events, x, top, y)
    parts += [*labels, *_axis(start, span, y, x)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 34:.0f}" '
        f'viewBox="0 0 {WIDTH} {y + 34:.0f}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


X = Callable[[float], float]


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _events(events: Sequence[Event], x: X, start: float, y: float) -> tuple[list[str], float]:
    """Their texts, one below the other where they would overlap. :returns: them and the next y."""
    free: list[float] = []
    drawn: list[str] = []
    for event in sorted(events, key=lambda each: each.at_s):
        text = f"{event.at_s - start:.2f} {event.text}"
        width = len(text) * CHARACTER
        left = min(x(event.at_s) + 3, WIDTH - RIGHT - width)
        line = next((i for i, until in enumerate(free) if until < left), len(free))
        if line >= MAX_LINES:
            continue
        free[line : line + 1] = [left + width + 6]
        drawn.append(_text(left, y + 10 + line * LINE, text))
    return drawn, y + len(free) * LINE + GAP


def _lines(events: Sequence[Event], x: X, top: float, bottom: float) -> list[str]:
    return [
        f'<line class="{"f" if each.fault else "h"}" x1="{x(each.at_s):.1f}" y1="{top:.0f}" '
        f'x2="{x(each.at_s):.1f}" y2="{bottom:.0f}"/>'
        for each in events
    ]


def _frame(name: str, y: float, height: float) -> list[str]:
    width = WIDTH - LEFT - RIGHT
    return [
        f'<rect class="frame" x="{LEFT}" y="{y:.0f}" width="{width}" height="{height:.0f}"/>',
        _text(LEFT - 6, y + 12, name, anchor="end"),
    ]


def _counts(
    group: Sequence[Operation], name: str, y: float, start: float, span: float, x: X
) -> list[str]:
    """Answers and failures in each slice of time."""
    all_, bad = [0] * SLICES, [0] * SLICES
    for each in group:
        slot = min(SLICES - 1, int((each.ended_s - start) / span * SLICES))
        all_[slot] += 1
        bad[slot] += not each.good
    most = max(all_)
    parts = _frame(name, y, ROW)
    parts.append(_text(LEFT - 6, y + 26, f"{most * SLICES / span:.0f}/s", anchor="end"))
    parts.append(_text(LEFT - 6, y + 40, f"{sum(bad)} failed", anchor="end"))
    width = (WIDTH - LEFT - RIGHT) / SLICES
    for counts, style in ((all_, "g"), (bad, "b")):
        for slot, count in enumerate(counts):
            if count:
                height = max(2.0, count / most * ROW)
                left = x(start + slot * span / SLICES)
                parts.append(
                    f'<rect class="{style}" x="{left:.1f}" y="{y + ROW - height:.1f}" '
                    f'width="{width:.2f}" height="{height:.1f}"/>'
                )
    return parts


def _latencies(group: Sequence[Operation], name: str, y: float, x: X) -> list[str]:
    """A dot for each answer where it ended."""
    decades = math.log10(SLOWEST_S / FASTEST_S)

    def height(took_s: float) -> float:
        return math.log10(min(max(took_s, FASTEST_S), SLOWEST_S) / FASTEST_S) / decades * ROW

    parts = _frame(f"{name} take", y, ROW)
    for mark in (0.01, 0.1, 1.0, 10.0):
        at = y + ROW - height(mark)
        parts.append(
            f'<line class="a" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>'
        )
        parts.append(_text(LEFT - 6, at + 4, f"{mark:g} s", anchor="end") if mark < 10 else "")
    step = max(1, len(group) // MAX_DOTS)
    for number, each in enumerate(group):
        if each.good and number % step:
            continue
        style, size = ("ok", 1.6) if each.good else ("b", 2.6)
        parts.append(
            f'<circle class="{style}" cx="{x(each.ended_s):.1f}" '
            f'cy="{y + ROW - height(each.took_s):.1f}" r="{size}"/>'
        )
    return parts


def _answers(probes: Sequence[Operation], node: str, y: float, x: X) -> list[str]:
    """When a node took itself for the owner."""
    parts = _frame(node, y, 18)
    parts += [
        f'<rect class="ok" x="{x(each.begun_s):.1f}" y="{y + 3:.0f}" '
        f'width="{max(1.0, x(each.ended_s) - x(each.begun_s)):.1f}" height="12"/>'
        for each in probes
        if each.status == 200
    ]
    return parts


def _axis(start: float, span: float, y: float, x: X) -> list[str]:
    step = 10 ** math.floor(math.log10(span))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if span / s <= 12)
    return [
        _text(x(start + number * step), y + 14, f"{number * step:g} s", anchor="middle")
        for number in range(int(span / step) + 1)
    ]

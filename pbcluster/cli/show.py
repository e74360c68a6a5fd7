"""What a person sees: progress lines, tables, the sentences after ``up``. With ``--json``: JSON.

Results go to stdout; progress and errors go to stderr, so that results can be piped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from pbcluster.cli import state
from pbcluster.cli.state import ClusterState

_STYLES = {
    state.SERVING: "green",
    state.RESTARTING: "yellow",
    state.DEAD: "red",
    state.STOPPED: "dim",
}


def out() -> Console:
    """Console of results; lines are not wrapped when piped."""
    return Console(file=sys.stdout, soft_wrap=True, highlight=False)


def err() -> Console:
    """Console of progress and errors."""
    return Console(file=sys.stderr, soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A line of the result. The text is never read as markup."""
    out().print(Text(text))


def warn(text: str) -> None:
    """A line beside the result."""
    err().print(Text(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        found.add_column(column, overflow="fold")
    for row in rows:
        found.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 200).print(
        found
    )


class Progress:
    """Says on stderr what changed from one cluster state to the next; on a terminal with a spinner.

    One line whenever a process begins to serve, dies or stops, with the seconds since the start.
    """

    def __init__(self) -> None:
        self._console = err()
        self._began = time.monotonic()
        self._last: dict[str, tuple[str, int]] = {}
        self._status: Status | None = None
        self._then: Callable[[ClusterState], None] = lambda _: None

    def then(self, also: Callable[[ClusterState], None]) -> None:
        """Call this with each state, after it was shown."""
        self._then = also

    def __call__(self, now: ClusterState) -> None:
        """Show the new state."""
        for process in now.processes:
            before = self._last.get(process.id)
            self._last[process.id] = (process.state, process.restarts)
            if before is None or before != self._last[process.id]:
                self._line(process)
        self._spin(now)
        self._then(now)

    def close(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _line(self, process: state.ProcessState) -> None:
        after = f"{time.monotonic() - self._began:5.1f} s"
        what = {
            state.SERVING: ("✓", "green", f"serves at {process.address}"),
            state.RESTARTING: ("!", "yellow", f"ended ({process.reason}); starts again soon"),
            state.DEAD: ("!", "red", f"ended ({process.reason})"),
            state.STOPPED: ("·", "dim", "stopped"),
        }.get(process.state)
        if what is not None and (process.state != state.STOPPED or process.reason):
            sign, style, text = what
            line = Text.assemble((f"{sign} ", style), f"{after}  {process.id} {text}")
            self._console.print(line)

    def _spin(self, now: ClusterState) -> None:
        if now.phase not in (state.STARTING, state.STOPPING) or not self._console.is_terminal:
            self.close()
            return
        busy = [p.id for p in now.processes if p.state == now.phase]
        text = Text(now.message or f"{now.phase} {', '.join(busy) or 'the cluster'} …")
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

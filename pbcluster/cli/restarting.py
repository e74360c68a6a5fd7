"""``restart``: one process after another, so that no request fails.

What each kind needs before its process is replaced (``replacing``), and what must be true again
before the next one's turn:

* a **member** that leads hands over first; afterwards every member follows the log again, so that
  a majority is there at any time;
* a **node** is drained where another one takes its tenants, and undrained afterwards, unless an
  operator had drained it; afterwards the control plane hears its new process;
* a **gateway** hands its sockets over and drains; nothing needs to be done;
* **S3** has no such way: while it starts, writes wait, or are refused.

Blocking; every wait has a bound. It acts on the processes of one directory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from pbcluster.cli import replacing
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.layout import ClusterDir, Plan, Process
from pbcluster.errors import DeadlineExceeded, NotFound, PBClusterError

#: Members first, since nodes and gateways of the release before understand those of the next.
ORDER = ("member", "node", "gateway")
#: A transfer of leadership takes milliseconds, and is asked for again where it failed.
TRANSFER_WITHIN_S = 20.0
#: A member that comes back lacks what was written meanwhile, or needs a snapshot.
CAUGHT_UP_WITHIN_S = 120.0
#: A node says who it is with its first heartbeat.
HEARD_WITHIN_S = 60.0
_POLL_S = 0.1
_TRANSFER_AGAIN_S = 2.0
#: A follower that lacks no more than this takes part; a busy group always lacks a few.
_FEW_ENTRIES = 100

Shown = Callable[[str], None]


@attrs.frozen
class Restarted:
    """A process that was restarted.

    :ivar pid: of the new process. :ivar seconds: from the first preparation to the last check.
    :ivar moved: tenants that left a node before.
    """

    id: str
    kind: str
    pid: int
    seconds: float
    moved: int = 0


@attrs.frozen
class Restarter:
    """Restarts processes of one directory.

    :ivar plan: gives the plan as it is now. :ivar shown: is told each step.
    :ivar drain: whether nodes are drained. :ivar drain_s: a drain's longest time.
    """

    where: ClusterDir
    client: AdminClient
    shown: Shown
    drain: bool = True
    drain_s: float = 600.0

    def all(self, plan: Plan) -> Iterator[Restarted]:
        """Every member, node and gateway."""
        for process in self.in_order(plan):
            yield self.one(plan, process)

    def in_order(self, plan: Plan) -> list[Process]:
        """The order in which all are restarted; who leads now is the last of the members."""
        found = [process for kind in ORDER for process in plan.of(kind)]
        leader = self._leader()
        place = [ORDER.index(p.kind) for p in found]
        ranked = sorted(zip(place, found, strict=True), key=lambda r: (r[0], r[1].id == leader))
        return [process for _, process in ranked]

    def one(self, plan: Plan, process: Process) -> Restarted:
        """One process.

        :raises PBClusterError: it could not be done; says what is as it was, and what is not.
        """
        began = time.monotonic()
        moved = 0
        if process.kind == "member":
            pid = self._member(plan, process.id)
        elif process.kind == "node":
            pid, moved = self._node(plan, process.id)
        else:
            pid = replacing.replace(self.where, plan, process.id)
        seconds = round(time.monotonic() - began, 3)
        self.shown(f"{process.id} is process {pid} now, after {seconds:.1f} s")
        return Restarted(process.id, process.kind, pid, seconds, moved)

    # -- members ----------------------------------------------------------------------------------

    def _leader(self) -> str:
        rows = self.client.all("members")
        return next((str(row["id"]) for row in rows if row.get("role") == "leader"), "")

    def _member(self, plan: Plan, name: str) -> int:
        self._hand_over(name)
        pid = replacing.replace(self.where, plan, name)
        self._until(
            lambda: self._group_is_whole(name),
            f"the members to follow the log after the restart of {name}",
            CAUGHT_UP_WITHIN_S,
        )
        return pid

    def _hand_over(self, name: str) -> None:
        """See to it that another one leads; a lone member cannot hand over."""
        asked_at = float("-inf")

        def another_leads() -> bool:
            nonlocal asked_at
            rows = self.client.all("members")
            if not any(row["id"] == name and row.get("role") == "leader" for row in rows):
                return True
            others = [r for r in rows if r["id"] != name and r.get("voter") and _follows(r)]
            if not others:
                return True
            if time.monotonic() - asked_at > _TRANSFER_AGAIN_S:
                asked_at = time.monotonic()
                best = max(others, key=lambda row: int(row.get("index") or 0))
                self.shown(f"{name} leads: {best['id']} is asked to")
                self.client.request("POST", "/members/transfer", {"to": best["id"]})
            return False

        self._until(another_leads, f"another member than {name} to lead", TRANSFER_WITHIN_S)

    def _group_is_whole(self, name: str) -> bool:
        rows = self.client.all("members")
        if not any(row["id"] == name for row in rows):
            raise NotFound(f"{name} is no member any more", id=name)
        leads = any(row.get("role") == "leader" for row in rows)
        return leads and all(row.get("role") == "leader" or _follows(row) for row in rows)

    # -- nodes ------------------------------------------------------------------------------------

    def _node(self, plan: Plan, name: str) -> tuple[int, int]:
        before = self._node_row(name)
        with self._drained(name, before) as moved:
            pid = replacing.replace(self.where, plan, name)
            self._until(
                lambda: self._is_heard(name, before),
                f"the control plane to hear the new {name}",
                HEARD_WITHIN_S,
            )
        return pid, moved

    def _node_row(self, name: str) -> dict[str, Any]:
        return next((row for row in self.client.all("nodes") if row.get("id") == name), {})

    def _is_heard(self, name: str, before: dict[str, Any]) -> bool:
        row = self._node_row(name)
        return bool(row.get("alive")) and row.get("incarnation") != before.get("incarnation")

    @contextmanager
    def _drained(self, name: str, row: dict[str, Any]) -> Iterator[int]:
        """The node has no tenants meanwhile, where others can take them. :returns: how many."""
        others = [
            other
            for other in self.client.all("nodes")
            if other.get("id") != name and other.get("alive") and not other.get("drainWanted")
        ]
        if not self.drain or not others or not row.get("alive") or row.get("drainWanted"):
            if self.drain and not others:
                self.shown(f"no other node can take the tenants of {name}: their requests wait")
            yield 0
            return
        try:
            yield self._drain(name)
        finally:
            self.client.request("POST", f"/nodes/{name}/undrain")

    def _drain(self, name: str) -> int:
        seen = dict(self.client.request("POST", f"/nodes/{name}/drain"))
        began_with = int(seen["left"])
        told = -1

        def nothing_left() -> bool:
            nonlocal told
            now = self.client.request("GET", f"/nodes/{name}/drain")
            left = int(now["left"])
            if left != told:
                told = left
                self.shown(f"{name} is drained: {left} tenants left")
            return left == 0

        self._until(nothing_left, f"{name} to have no tenants", self.drain_s)
        return began_with

    # -- waiting ----------------------------------------------------------------------------------

    def _until(self, happened: Callable[[], bool], what: str, within_s: float) -> None:
        """Look again and again; what the control plane cannot say just now it may say later.

        :raises DeadlineExceeded: in vain.
        """
        until = time.monotonic() + within_s
        last = ""
        while True:
            try:
                if happened():
                    return
            except NotFound:
                raise
            except PBClusterError as error:
                last = f" ({error})"
            if time.monotonic() >= until:
                raise DeadlineExceeded(f"waited {within_s:.0f} s for {what}{last}")
            time.sleep(_POLL_S)


def _follows(row: dict[str, Any]) -> bool:
    """Whether a member takes part in the log."""
    behind = row.get("behind")
    return row.get("state") == "replicate" and isinstance(behind, int) and behind <= _FEW_ENTRIES

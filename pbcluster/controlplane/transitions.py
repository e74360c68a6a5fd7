"""Every status of a tenant and of a node, and every way from one to another: one table each. Pure.

What holds: the registry stores no other change of a status than stands here: a command that would
make one is refused and changes nothing. The page ``docs/state-machines/registry`` is made from
these tables (``python -m pbcluster.controlplane.transitions``), and a test compares it.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from pbcluster.errors import Conflict
from pbcluster.records import NodeStatus, TenantStatus


@attrs.frozen
class Way:
    """From one status to another. ``before`` None: the record is made by this."""

    before: str | None
    command: str
    after: str
    meaning: str


_T, _N = TenantStatus, NodeStatus


def _ways(
    befores: Iterable[TenantStatus] | Iterable[NodeStatus], command: str, after: str, meaning: str
) -> tuple[Way, ...]:
    return tuple(Way(before.value, command, after, meaning) for before in befores)


_LIVING = (_T.CREATED, _T.ACTIVE, _T.IDLE)
_ALIVE = (*_LIVING, _T.ARCHIVING, _T.ARCHIVED)

TENANT = (
    Way(None, "CreateTenant", "created", "it has a name and no node yet"),
    *_ways(
        (_T.CREATED, _T.IDLE), "MarkReady", "active", "its owner wrote READY or woke it: it answers"
    ),
    *_ways((_T.CREATED, _T.ACTIVE), "SetTenantStatus", "idle", "its owner stopped it for the time"),
    *_ways((_T.CREATED, _T.IDLE), "SetTenantStatus", "active", "its owner runs it"),
    *_ways(_LIVING, "ArchiveTenant", "archiving", "a node must stop it and claim its end"),
    *_ways(_LIVING, "ArchiveTenant", "archived", "it never had a node: nothing is in S3"),
    Way("archiving", "TenantEnded", "archived", "a node claimed its end; it has no copy any more"),
    Way("archived", "ActivateTenant", "idle", "its next request wakes it"),
    Way("archived", "ActivateTenant", "created", "the same, of one that was never ready"),
    *_ways(_ALIVE, "DeleteTenant", "deleting", "a node must stop it and claim its end"),
    *_ways(_ALIVE, "DeleteTenant", "deleted", "it never had a node: nothing is in S3"),
    Way("deleting", "TenantEnded", "deleted", "a node claimed its end: a tombstone stays"),
)

NODE = (
    Way(None, "RegisterNode", "healthy", "it started for the first time"),
    *_ways((_N.DEGRADED, _N.DRAINING, _N.DOWN), "RegisterNode", "healthy", "it started again"),
    *_ways(
        (_N.DEGRADED, _N.DRAINING, _N.DOWN),
        "SetNodeStatus",
        "healthy",
        "it answers again, or takes tenants again",
    ),
    *_ways((_N.DRAINING,), "DrainNode", "healthy", "an operator undrained it"),
    *_ways((_N.HEALTHY, _N.DEGRADED), "DrainNode", "draining", "an operator wants it empty"),
    *_ways(
        (_N.HEALTHY, _N.DEGRADED, _N.DOWN),
        "RegisterNode",
        "draining",
        "it started again, and an operator wants it empty",
    ),
    *_ways((_N.HEALTHY, _N.DRAINING, _N.DOWN), "SetNodeStatus", "degraded", "it says so itself"),
    *_ways(
        (_N.HEALTHY, _N.DEGRADED, _N.DOWN), "SetNodeStatus", "draining", "it takes no more tenants"
    ),
    *_ways(
        (_N.HEALTHY, _N.DEGRADED, _N.DRAINING),
        "SetNodeStatus",
        "down",
        "no heartbeat for ``node_down_after_s``",
    ),
)

_TENANT: set[tuple[str | None, ...]] = {(way.before, way.after) for way in TENANT}
_BY_COMMAND: set[tuple[str | None, ...]] = {(way.before, way.after, way.command) for way in TENANT}
_NODE = {(way.before, way.after) for way in NODE}


def check_tenant(
    name: str, before: TenantStatus | None, after: TenantStatus, command: str = ""
) -> None:
    """Whether a tenant may become ``after``.

    :param command: by this one; empty: by any.
    :raises Conflict: there is no such way.
    """
    old = None if before is None else before.value
    if old == after.value:
        return
    known = _BY_COMMAND if command else _TENANT
    if (old, after.value, *([command] if command else [])) not in known:
        raise Conflict(f"tenant {name!r} is {old}: it cannot become {after.value}")


def check_node(node_id: str, before: NodeStatus, after: NodeStatus) -> None:
    """:raises Conflict: there is no such way."""
    if before is not after and (before.value, after.value) not in _NODE:
        raise Conflict(f"node {node_id!r} is {before.value}: it cannot become {after.value}")


def page() -> str:
    """The page of the documentation."""
    parts = [
        "Tenants and nodes in the registry",
        "=================================",
        "",
        "Made from ``pbcluster/controlplane/transitions.py`` by",
        "``python -m pbcluster.controlplane.transitions``. A command that would make another",
        "change of a status is refused.",
    ]
    for title, ways in (("A tenant", TENANT), ("A node", NODE)):
        parts += ["", title, "-" * len(title), "", "::", "", *_drawing(ways), "", *_table(ways)]
    return "\n".join(parts) + "\n"


def _drawing(ways: tuple[Way, ...]) -> list[str]:
    """One line a status: where it leads."""
    after: dict[str, list[str]] = {}
    for way in ways:
        found = after.setdefault(way.before or "(nothing)", [])
        if way.after not in found:
            found.append(way.after)
    width = max(map(len, after))
    return [f"    {old:<{width}} -> {', '.join(new)}" for old, new in after.items()]


def _table(ways: tuple[Way, ...]) -> list[str]:
    rows = [("status", "command", "next", "meaning")]
    rows += [(w.before or "(nothing)", f"``{w.command}``", w.after, w.meaning) for w in ways]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    rule = " ".join("=" * width for width in widths)
    lines = [
        " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [rule, lines[0], rule, *lines[1:], rule]


if __name__ == "__main__":
    print(page(), end="")

"""What clients do to the registry, and what it comes to: real commands on real records.

A key has a node record and a tenant record, which a client sees as one value of three parts:

* *add* registers the node anew, under a start id made of the client's value: the node's starts are
  a list that only grows, and its incarnation is the list's length;
* *put* writes the tenant's metadata, whatever stood there;
* *assign* gives the tenant to the node if its epoch is still the one the client saw: refused, or
  the next epoch.

Every attempt of one operation has the same idempotency key and another text: a repetition that ran
again is in the list a second time, which nobody can explain.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.node_changes import MAX_STARTS
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import NotFound
from pbcluster.records import NodeStatus, TenantQuotas, TenantStatus
from pbcluster.testing.raft_sim.linearizability import State

KEYS = ("x", "y", "z")
BASE_DOMAIN = "sim"
#: The node that tenants are given to.
HOME = "home"
#: A tenant that is only there to be written to in bursts.
BURST = "t_burst"
#: Every command's time: no clock is in here.
AT = datetime(2026, 1, 1, tzinfo=UTC)


def genesis() -> Registry:
    """The registry with which the group begins, as of log index 1: a tenant a key, and a node."""
    registry = Registry(BASE_DOMAIN)
    first: list[c.AnyCommand] = [c.RegisterNode(AT, HOME, "first", "h:1", 1000)]
    for tenant in (*(f"t_{key}" for key in KEYS), BURST):
        first.append(c.CreateTenant(AT, tenant, tenant[2:], f"{tenant[2:]}.sim"))
    for index, command in enumerate(first, 1):
        registry.apply(index, c.Keyed("", command))
    registry.applied_index = registry.last_broadcast = 1
    return registry


class AddsLeft:
    """How often a key may still be added to: the registry forgets a node's oldest starts, and a
    list without its beginning tells a checker nothing. All clients together have these."""

    def __init__(self) -> None:
        self._left = dict.fromkeys(KEYS, MAX_STARTS)

    def take(self, key: str) -> bool:
        """Begin an *add* of ``key``; False: none is left."""
        self._left[key] -= 1
        return self._left[key] >= 0


def command(kind: str, key: str, value: str, attempt: int) -> c.AnyCommand:
    """The command of an operation.

    :param value: for an *assign* the epoch that is expected.
    """
    if kind == "add":
        return c.RegisterNode(AT, f"n_{key}", f"{value}/{attempt}", "h:1", 10)
    if kind == "put":
        return c.UpdateTenant(AT, f"t_{key}", metadata={"value": value})
    return c.AssignTenant(AT, f"t_{key}", HOME, int(value))


def burst(number: int) -> c.AnyCommand:
    """One of many commands that nobody waits for, of all the kinds that clients do not use; some
    are refused."""
    name = f"more{number % 3}"
    return (
        c.UpdateTenant(AT, BURST, quotas=TenantQuotas(burst=number)),
        c.CreateTenant(AT, f"t_{name}", name, f"{name}.sim", metadata={"number": number}),
        c.AssignTenant(AT, BURST, "n_x", 0, above_epoch=number),
        c.SetNodeCapacity(AT, "n_x", 1 + number % 2, 5),
        c.MarkReady(AT, BURST, "n_x", number),
        c.SetTenantStatus(AT, BURST, 1 + number % 2, TenantStatus.IDLE),
        c.DeleteTenant(AT, f"t_{name}"),
        c.TenantReleased(AT, BURST, "n_x", number),
        c.SetNodeStatus(AT, "n_y", 1 + number % 3, NodeStatus.DOWN),
        c.RegisterNode(AT, "n_more", f"start {number}", "h:2", 3),
    )[number % 10]


def look(registry: Registry, key: str) -> State:
    """What a client sees of a key."""
    tenant = registry.tenant(f"t_{key}")
    value = tenant.metadata.get("value", "")
    try:
        node = registry.node(f"n_{key}")
    except NotFound:
        return (), value, tenant.epoch
    starts = (*registry._starts.get(node.id, ()), node.start_id)
    assert len(starts) == node.incarnation, "more adds of a key than the registry remembers"
    return tuple(start.partition("/")[0] for start in starts), value, tenant.epoch

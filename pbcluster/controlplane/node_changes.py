"""How commands about nodes change the registry. Pure; the invariants are the registry's."""

from __future__ import annotations

import msgspec

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry_records import Change, RegistryRecords
from pbcluster.controlplane.transitions import check_node
from pbcluster.errors import Forbidden, WrongEpoch
from pbcluster.records import NodeRecord, NodeStatus

#: Starts remembered of each node, so that a process that was replaced cannot come back as a new
#: one; it would have to sleep through this many starts of its successor.
MAX_STARTS = 32


class NodeChanges(RegistryRecords):
    """One method a command; each raises what refuses it, and has changed nothing then."""

    def _register_node(self, index: int, command: c.RegisterNode) -> Change:
        known = self._nodes.get(command.node_id)
        if known is not None and known.removed:
            raise Forbidden(f"node {known.id!r} was removed: it never comes back under this id")
        if known is not None and known.start_id == command.start_id:
            return Change(Outcome(index, incarnation=known.incarnation))
        if command.start_id in self._starts.get(command.node_id, ()):
            raise WrongEpoch(f"this start of node {command.node_id!r} was replaced by a newer one")
        if known is not None:
            starts = [*self._starts.get(known.id, ()), known.start_id]
            self._starts[known.id] = starts[-MAX_STARTS:]
        incarnation = known.incarnation + 1 if known is not None else 1
        drain_wanted = known is not None and known.drain_wanted
        self._nodes[command.node_id] = NodeRecord(
            id=command.node_id,
            address=command.address,
            capacity=command.capacity,
            status=NodeStatus.DRAINING if drain_wanted else NodeStatus.HEALTHY,
            incarnation=incarnation,
            start_id=command.start_id,
            region=command.region,
            zone=command.zone,
            software_version=command.software_version,
            version=index,
            assignments_index=index,
            drain_wanted=drain_wanted,
        )
        return Change(
            Outcome(index, incarnation=incarnation),
            nodes=(command.node_id,),
            topic="node.up",
            node_id=command.node_id,
        )

    def _set_node_status(self, index: int, command: c.SetNodeStatus) -> Change:
        node = self._of_incarnation(command.node_id, command.incarnation)
        status = command.status if not node.removed else NodeStatus.DOWN
        if node.drain_wanted and status is NodeStatus.HEALTHY:
            status = NodeStatus.DRAINING
        if node.status is status:
            return Change(Outcome(index, incarnation=node.incarnation))
        check_node(node.id, node.status, status)
        self._nodes[node.id] = msgspec.structs.replace(node, status=status, version=index)
        topics = {NodeStatus.DOWN: "node.down", NodeStatus.DRAINING: "node.draining"}
        return Change(
            Outcome(index, incarnation=node.incarnation),
            topic=topics.get(status, "node.up"),
            node_id=node.id,
        )

    def _set_node_capacity(self, index: int, command: c.SetNodeCapacity) -> Change:
        node = self._of_incarnation(command.node_id, command.incarnation)
        self._nodes[node.id] = msgspec.structs.replace(
            node, capacity=command.capacity, version=index
        )
        return Change(Outcome(index, incarnation=node.incarnation))

    def _of_incarnation(self, node_id: str, incarnation: int) -> NodeRecord:
        node = self.node(node_id)
        if node.incarnation != incarnation:
            raise WrongEpoch(f"node {node_id!r} is at incarnation {node.incarnation}")
        return node

"""Which nodes live: leases, suspicion, and when a silent node's tenants may be given away.

Soft state of the leader, never in the log: a new leader begins with none and therefore gives
nothing away before a whole margin has passed. The rules (section "Ownership", rule 5):

* A node renews its lease each 0.4 s. Two renewals missed and a probe unanswered: *suspected*. From
  that moment its acknowledgements cover nothing, until it is heard again.
* What it had may be given away no sooner than the margin (2 s) after the last acknowledgement that
  was *sent* to it, whatever it says meanwhile: by then every proof it could hold has run out.
* A tenant that is being taken away stays uncovered from the decision on, even if its node is heard
  again before the decision is committed.
* A lease of an older incarnation is refused and proves nothing about the new one. What the older
  one was promised holds for the margin: until then the new one gets no new epoch, so that the two
  cannot answer side by side (``may_renew``).

Times are seconds of one monotonic clock, passed in. This module sends nothing.
"""

from __future__ import annotations

import attrs

from pbcluster.durations import Durations
from pbcluster.wire import Heartbeat, TenantUsage


@attrs.define
class _Node:
    incarnation: int
    heard_at: float
    last_ack_at: float
    #: Last acknowledgement to an older incarnation, or the beginning of this leader.
    before_ack_at: float
    probed_at: float | None = None
    suspected_at: float | None = None
    heartbeat_at: float | None = None
    heartbeat: Heartbeat | None = None
    #: Tenant → what the last heartbeat said of it.
    usages: dict[str, TenantUsage] = attrs.Factory(dict)


@attrs.frozen
class ProbeNode:
    """Ask this node whether it is there, within ``Durations.probe_timeout_s``."""

    node_id: str
    incarnation: int


class Liveness:
    """What the leader knows of the nodes' pulse."""

    def __init__(self, durations: Durations, now: float) -> None:
        """
        :param now: when this leader began: nothing is given away before a margin later.
        """
        self._durations = durations
        self._began = now
        self._nodes: dict[str, _Node] = {}
        #: Tenants that are being taken away → the node that loses them.
        self._taking: dict[str, str] = {}

    def reset(self, now: float) -> None:
        """Another leadership begins, or this one ended: forget everything.

        :param now: nothing is given away before a margin later.
        """
        self._began = now
        self._nodes.clear()
        self._taking.clear()

    # -- what nodes say --

    def known(self, node_id: str, incarnation: int, now: float) -> None:
        """A node of the registry that this leader has not heard of: counts as heard just now."""
        node = self._nodes.get(node_id)
        if node is None or node.incarnation < incarnation:
            before = node.last_ack_at if node is not None else self._began
            # What the old incarnation was promised holds for the margin, whoever speaks now.
            self._nodes[node_id] = _Node(incarnation, now, before, before)

    def lease(self, node_id: str, incarnation: int, now: float) -> bool:
        """A lease renewal arrived, and its answer will be sent now.

        :returns: whether it is granted: the node is known under this incarnation.
        """
        node = self._nodes.get(node_id)
        if node is None or node.incarnation != incarnation:
            return False
        self._heard(node, now)
        node.last_ack_at = now
        return True

    def heard(self, node_id: str, incarnation: int, now: float) -> None:
        """Any other sign of life of this incarnation (a probe's answer, a heartbeat)."""
        node = self._nodes.get(node_id)
        if node is not None and node.incarnation == incarnation:
            self._heard(node, now)

    def heartbeat(self, beat: Heartbeat, now: float) -> None:
        """A heartbeat of a known incarnation; others are ignored."""
        node = self._nodes.get(beat.node_id)
        if node is not None and node.incarnation == beat.incarnation:
            self._heard(node, now)
            node.heartbeat_at, node.heartbeat = now, beat
            node.usages = {each.tenant_id: each for each in beat.tenants}

    def doubted(self, node_id: str, incarnation: int, now: float) -> ProbeNode | None:
        """A gateway could not reach it: probe it now, unless that is under way or too recent."""
        node = self._nodes.get(node_id)
        if node is None or node.incarnation != incarnation or node.probed_at is not None:
            return None
        node.probed_at = now
        return ProbeNode(node_id, incarnation)

    @staticmethod
    def _heard(node: _Node, now: float) -> None:
        node.heard_at = now
        node.probed_at = None
        node.suspected_at = None

    # -- what follows --

    def tick(self, now: float) -> tuple[ProbeNode, ...]:
        """Call it several times a second.

        :returns: the nodes to probe now.
        """
        probes = []
        for node_id, node in self._nodes.items():
            silent = now - node.heard_at > self._durations.suspect_after_s
            if not silent:
                # A probe that a gateway asked for and that was lost: the lease speaks for it.
                if node.probed_at is not None and self._probe_over(node, now):
                    node.probed_at = None
            elif node.probed_at is None:
                node.probed_at = now
                probes.append(ProbeNode(node_id, node.incarnation))
            elif node.suspected_at is None and self._probe_over(node, now):
                node.suspected_at = now
        return tuple(probes)

    def _probe_over(self, node: _Node, now: float) -> bool:
        assert node.probed_at is not None
        return now - node.probed_at >= self._durations.probe_timeout_s

    def alive(self, node_id: str) -> bool:
        """Known and not suspected."""
        node = self._nodes.get(node_id)
        return node is not None and node.suspected_at is None

    def may_give_away(self, node_id: str, now: float) -> bool:
        """Whether a suspected node can hold no proof any more."""
        node = self._nodes.get(node_id)
        earliest = self._began + self._durations.reassign_margin_s
        if node is None:
            # In the registry, but silent since this leader began.
            return now >= earliest
        earliest = max(earliest, node.last_ack_at + self._durations.reassign_margin_s)
        return node.suspected_at is not None and now >= earliest

    def may_renew(self, node_id: str, now: float) -> bool:
        """Whether no older incarnation of a node can hold a proof any more."""
        node = self._nodes.get(node_id)
        before = self._began if node is None else node.before_ack_at
        return now >= before + self._durations.reassign_margin_s

    def suspected(self) -> tuple[str, ...]:
        """Ids of all suspected nodes."""
        return tuple(k for k, node in self._nodes.items() if node.suspected_at is not None)

    def is_down(self, node_id: str, now: float, down_after_s: float) -> bool:
        """Whether no heartbeat came for ``down_after_s`` (for operators; ownership never waits)."""
        node = self._nodes.get(node_id)
        last = self._began if node is None else max(node.heartbeat_at or 0.0, node.heard_at)
        return now - max(last, self._began) >= down_after_s

    # -- taking away --

    def begin_taking(self, tenant_id: str, node_id: str) -> None:
        """It was decided to take a tenant from a node: its acknowledgements cover it no more."""
        self._taking[tenant_id] = node_id

    def end_taking(self, tenant_id: str) -> None:
        """The decision was committed, or failed."""
        self._taking.pop(tenant_id, None)

    def is_taking(self, tenant_id: str) -> bool:
        """Whether such a decision is under way."""
        return tenant_id in self._taking

    def not_covered(self, node_id: str) -> tuple[str, ...]:
        """Tenants that an acknowledgement to this node must leave out."""
        return tuple(sorted(t for t, loser in self._taking.items() if loser == node_id))

    # -- for those who look --

    def incarnation(self, node_id: str) -> int:
        """The incarnation that leases are granted to, 0 if unknown."""
        node = self._nodes.get(node_id)
        return node.incarnation if node is not None else 0

    def last_heartbeat(self, node_id: str) -> tuple[float, Heartbeat] | None:
        """When the last heartbeat came (monotonic seconds), and what it said."""
        node = self._nodes.get(node_id)
        if node is None or node.heartbeat is None or node.heartbeat_at is None:
            return None
        return node.heartbeat_at, node.heartbeat

    def usage(self, node_id: str, tenant_id: str) -> TenantUsage | None:
        """What the node's last heartbeat said of a tenant."""
        node = self._nodes.get(node_id)
        return None if node is None else node.usages.get(tenant_id)

"""What is counted of requests, as cheap as counting can be. Pure.

``prometheus_client``'s own counters take a lock and a look-up for each number, some 8 µs a request;
here a request touches one object. ``metrics`` shows the figures in Prometheus's form.

No figure is kept by anything that a client chose: hosts, paths and tenants may be any number. Node
ids come from the control plane; beyond :data:`MAX_NODES` further ones are counted together.
"""

from __future__ import annotations

from pbcluster.gateway.parts import Record

#: From a request on a warm connection to one that was held for its whole time.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MAX_NODES = 1024
#: Stands for all nodes beyond :data:`MAX_NODES`.
OTHERS = "others"
#: Classes of status: 0 for requests without an answer, then 1xx to 5xx.
CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class Durations:
    """A histogram of seconds.

    :ivar counts: by bucket of :data:`BUCKETS_S`, and one for what is longer.
    """

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        at = 0
        for bound in BUCKETS_S:
            if seconds <= bound:
                break
            at += 1
        self.counts[at] += 1
        self.total_s += seconds


class NodeFigures:
    """The requests that ended at one node.

    :ivar classes: how many, by class of status, see :data:`CLASSES`.
    :ivar first_byte: from a request's head to its answer's head, holds included.
    """

    __slots__ = ("classes", "first_byte")

    def __init__(self) -> None:
        self.classes = [0] * len(CLASSES)
        self.first_byte = Durations()


class Figures:
    """The figures of a gateway.

    :ivar nodes: by node id; empty: no node was asked. :ivar held: how long requests waited that
        did. :ivar further_attempts: attempts after a request's first.
    :ivar sources: requests by where their route was from. :ivar outcomes: by how they ended.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeFigures] = {}
        self.held = Durations()
        self.further_attempts = 0
        self.sources: dict[str, int] = {}
        self.outcomes: dict[str, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0

    def over(self, record: Record) -> None:
        """Count one request that is over."""
        node: NodeFigures | None = self.nodes.get(record.node)
        if node is None:
            node = self._meet(record.node)
        node.classes[record.status // 100] += 1
        if record.first_byte_s:
            node.first_byte.add(record.first_byte_s)
        if record.held_s:
            self.held.add(record.held_s)
        if record.attempts > 1:
            self.further_attempts += record.attempts - 1
        self.sources[record.source] = self.sources.get(record.source, 0) + 1
        self.outcomes[record.outcome] = self.outcomes.get(record.outcome, 0) + 1
        self.bytes_in += record.request_bytes
        self.bytes_out += record.response_bytes

    def _meet(self, node_id: str) -> NodeFigures:
        if len(self.nodes) >= MAX_NODES:
            node_id = OTHERS
        return self.nodes.setdefault(node_id, NodeFigures())

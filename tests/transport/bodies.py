"""Messages that many tests need."""

from __future__ import annotations

from pbcluster import wire

CLUSTER = "cluster-x"


def envelope(sender: str = "node_a", request_id: int = 1, **changes: object) -> wire.Envelope:
    fields: dict[str, object] = {
        "cluster_id": CLUSTER,
        "sender": sender,
        "request_id": request_id,
        "timeout_ms": 1000,
        "idempotency_key": "",
        "body": wire.Lease("node_a", 1, 7),
    }
    return wire.Envelope(**{**fields, **changes})  # type: ignore[arg-type]


def register(node_id: str = "node_a") -> wire.RegisterNode:
    return wire.RegisterNode(node_id, "start-1", "http://127.0.0.1:1", 200)


def broadcast(index: int, previous: int, topic: str = "tenant.updated") -> wire.Broadcast:
    return wire.Broadcast(topic, index, previous)

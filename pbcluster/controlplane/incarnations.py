"""Which process of a node is heard: the one whose incarnation is registered, no former one.

It knows nothing of what is said.
"""

from __future__ import annotations

from pbcluster.controlplane.registry import Registry
from pbcluster.errors import WrongEpoch


def check_incarnation(registry: Registry, node_id: str, incarnation: int) -> None:
    """Whether it is the node's present process that speaks.

    :raises NotFound: the node is unknown. :raises WrongEpoch: another incarnation is registered.
    """
    node = registry.node(node_id)
    if node.incarnation != incarnation:
        raise WrongEpoch(
            f"node {node_id!r} is at incarnation {node.incarnation}, not {incarnation}",
            incarnation=node.incarnation,
        )

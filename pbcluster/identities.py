"""How the processes of a cluster are named in certificates of its own authority. Pure.

A certificate between gateway and node names its process by one DNS name, ``<id>.<role>s.<suffix>``,
under a domain that is never resolved (``internal`` is reserved for private use). An id is one
label: it holds no dot. Whose cluster it is, the authority says: each cluster has its own.
"""

from __future__ import annotations

SUFFIX = "pbcluster.internal"
#: Roles that have certificates: nodes and members (at their admin API) answer, gateways ask.
NODE, GATEWAY, MEMBER = "node", "gateway", "member"


def name_of(role: str, process_id: str) -> str:
    """``node_1.nodes.pbcluster.internal``"""
    return f"{process_id}.{role}s.{SUFFIX}"


def has_role(name: str, role: str) -> bool:
    """Whether a name is that of a process with this role."""
    process_id, _, rest = name.partition(".")
    return bool(process_id) and process_id != "*" and rest == f"{role}s.{SUFFIX}"

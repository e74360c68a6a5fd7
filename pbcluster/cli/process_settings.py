"""The settings of each process of a plan: the content of ``config/<id>.toml``. Pure.

Where a process joined from another machine, ``parcels`` takes from here what its kind has.
"""

from __future__ import annotations

from typing import Any

from pbcluster.cli import certificates
from pbcluster.cli.layout import BUCKET, ClusterDir, Plan, Process


def of(where: ClusterDir, plan: Plan, process: Process) -> dict[str, Any]:
    """The content of ``config/<id>.toml``. Paths are relative to that file."""
    members = plan.of("member")
    common = {
        "id": process.id,
        "cluster_id": plan.cluster_id,
        "data_dir": f"../data/{process.id}",
        "secrets_file": f"../secrets/{process.id}.toml",
        "peers_file": "peers.toml",
        "insecure_plain_sockets": plan.insecure_plain_sockets,
    }
    control = {
        # Who connects under CURVE must know whose key to expect: the member's id goes along.
        "members": [f"{_tcp(plan, member, 'requests')}#{member.id}" for member in members],
        "broadcasts": [f"{_tcp(plan, member, 'broadcasts')}#{member.id}" for member in members],
    }
    own: dict[str, dict[str, Any]] = {
        "member": {
            "base_domain": plan.base_domain,
            "request_endpoint": _tcp(plan, process, "requests"),
            "broadcast_endpoint": _tcp(plan, process, "broadcasts"),
            "admin_listen": f"{plan.host}:{process.ports.get('admin')}",
        }
        | _group(plan, process)
        | _opened(plan, process),
        "node": control
        | {
            "listen": f"{plan.host}:{process.ports.get('http')}",
            "s3_endpoint": f"http://{plan.host}:{plan.of('s3')[0].ports['s3']}",
            "s3_bucket": BUCKET,
            "binaries": list(plan.binaries),
        },
        "gateway": control
        | {
            "listen": f"{plan.host}:{process.ports.get('http')}",
            "base_domains": [plan.base_domain],
            # Nobody balances load in front of it; where somebody does, [settings.gateway] says so.
            "drain_ready_s": 0.0,
            "drain_s": 10.0,
        },
    }
    if plan.node_tls and process.kind in certificates.KINDS:
        common["node_tls"] = f"../secrets/{process.id}.tls"
    return common | own[process.kind] | plan.settings.get(process.kind, {})


def _opened(plan: Plan, process: Process) -> dict[str, Any]:
    """What a member needs so that other machines can come: its admin API goes over TLS."""
    if not plan.address:
        return {}
    return {
        "admin_tls": f"../secrets/{process.id}.admin",
        "admin_ca": "../secrets/ca/ca.pem",
        "authority": "../secrets/ca",
    }


def _group(plan: Plan, process: Process) -> dict[str, Any]:
    """What a member must know of the others."""
    others = [member for member in plan.of("member") if member.id != process.id]

    def peers(use: str) -> list[str]:
        return [f"{_tcp(plan, member, use)}#{member.id}" for member in others]

    return {
        "raft_endpoint": _tcp(plan, process, "raft"),
        "raft_peers": peers("raft"),
        "request_peers": peers("requests"),
        "broadcast_peers": peers("broadcasts"),
        "admin_peers": [
            f"{plan.admin_scheme}://{plan.host}:{member.ports.get('admin')}#{member.id}"
            for member in others
        ],
    }


def _tcp(plan: Plan, process: Process, use: str) -> str:
    return f"tcp://{plan.host}:{process.ports.get(use)}"

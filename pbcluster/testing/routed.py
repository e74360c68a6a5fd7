"""Puts a proxy into every way between two processes of a cluster, before they are started.

The settings that ``pbcluster init`` wrote are rewritten: who opens a connection finds the port of a
link (:mod:`pbcluster.testing.proxies`) where the other one's port stood. What each process listens
on stays as it is, and so do the keys. The harness itself, and clients of the gateway, go directly.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pbcluster import config
from pbcluster.cli.layout import LOOPBACK, ClusterDir, Plan, Process, to_toml, write_file
from pbcluster.testing.proxies import ProxyNet

#: Settings that name other processes' addresses: one, or a list of them.
_SETTINGS = ("raft_peers", "admin_peers", "members", "broadcasts", "s3_endpoint")


def route_through(proxies: ProxyNet, where: ClusterDir, plan: Plan) -> None:
    """Rewrite ``config/*.toml`` so that the plan's processes meet through ``proxies``."""
    owners = {port: p.id for p in plan.processes for port in p.ports.values()}
    for process in plan.processes:
        file = where.config(process.id)
        if not file.exists():
            continue
        content = config.read_toml(file)
        for name in _SETTINGS:
            if name in content:
                content[name] = _routed(proxies, process.id, owners, content[name])
        if process.kind == "node":
            content["advertise"] = _advertised(proxies, plan, process)
        write_file(file, to_toml(content))


def _routed(proxies: ProxyNet, own: str, owners: dict[int, str], value: Any) -> Any:
    if isinstance(value, list):
        return [_routed(proxies, own, owners, each) for each in value]
    port = urlsplit(value).port
    if port is None or port not in owners:
        return value
    return value.replace(f":{port}", f":{proxies.link(own, owners[port], port)}", 1)


def _advertised(proxies: ProxyNet, plan: Plan, node: Process) -> str:
    """The address that the node tells: there is one gateway, and nobody else goes there."""
    port = proxies.link(plan.of("gateway")[0].id, node.id, node.ports["http"])
    return f"http://{LOOPBACK}:{port}"

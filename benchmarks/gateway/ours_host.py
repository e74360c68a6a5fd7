"""A lone control-plane member, a gateway and a node's stand-in, of whichever checkout runs this.

``python -m benchmarks.gateway.ours_host JOB`` starts them, prints one line of JSON about them, and
ends them when its standard input ends. The gateway is ``twistd pbgateway`` with the settings that
``pbcluster init`` writes, and finds its routes by asking the member. The node only lives
(``pbcluster.testing.stand_in_nodes``): whoever listens at the port that it registers gets the
requests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import attrs

from benchmarks.gateway.processes import on_core, wait_until
from pbcluster.cli.child import ProcessSpec
from pbcluster.cli.http import Unreachable, ask
from pbcluster.cli.spec import service_environment
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.stand_in_nodes import StandInNodes

GATEWAY = "gateway_1"
#: Bounds that a load from one address, on a machine that others use too, would meet: options of
#: ``pbgateway`` → value, if it has them.
UNBOUNDED = {
    "connections-per-address": 0,
    "requests-per-address": 0,
    "requests-per-second-per-address": 0,
    "shed-loop-lag-s": 0,
}


def gateway_options() -> set[str]:
    """Names of all options of this checkout's ``pbgateway``."""
    command = [sys.executable, "-P", "-m", "pbcluster.twistd", "pbgateway", "--help"]
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, env=service_environment()
    ).stdout
    return set(re.findall(r"--([a-z][a-z0-9-]+)", told))


def run(job: dict[str, Any]) -> None:
    """
    :param job: ``upstream_port``; ``tenants``: their names; ``settings`` of the gateway (those
        that its checkout does not know are left out and told); ``gateway_core``, ``other_core``.
    """
    options = gateway_options()
    wished = UNBOUNDED | {key.replace("_", "-"): value for key, value in job["settings"].items()}
    settings = {k.replace("-", "_"): v for k, v in wished.items() if k in options}

    def pinned(spec: ProcessSpec) -> ProcessSpec:
        core = job["gateway_core"] if spec.kind == "gateway" else job["other_core"]
        return attrs.evolve(spec, argv=tuple(on_core(core, spec.argv)))

    cluster = RealCluster(nodes=1, members=1, settings={"gateway": settings}, change_spec=pinned)
    with cluster:
        (node,) = cluster.plan.of("node")
        there = attrs.evolve(node, ports=node.ports | {"http": job["upstream_port"]})
        others = tuple(p for p in cluster.plan.processes if p.kind != "node")
        plan = attrs.evolve(cluster.plan, processes=(*others, there))
        with StandInNodes(cluster.where, plan) as nodes:
            cluster.start(*cluster.ids("member"), GATEWAY)
            wait_until(nodes.registered, "the stand-in node to be registered")
            for name in job["tenants"]:
                cluster.admin.request("POST", "/tenants?wait=0", {"name": name})
            wait_until(lambda: _answers(cluster, job["tenants"][0]), "a tenant to answer")
            print(json.dumps(_told(cluster, options, wished)), flush=True)
            sys.stdin.read()


def _answers(cluster: RealCluster, name: str) -> bool:
    headers = {"Host": cluster.host(name)}
    try:
        return ask("GET", cluster.gateway_url, headers=headers, timeout_s=2.0).status == 200
    except Unreachable:
        return False


def _told(cluster: RealCluster, options: set[str], wished: dict[str, Any]) -> dict[str, Any]:
    ready = cluster.ready(GATEWAY)
    return {
        "port": cluster.plan.gateway_port,
        "pid": cluster.pid(GATEWAY),
        "log": str(cluster.where.log(GATEWAY)),
        "ready": ready,
        "data": str(cluster.where.data(GATEWAY)),
        "root": str(cluster.where.root),
        "options": sorted(options),
        "unknown": sorted(set(wished) - options - set(UNBOUNDED)),
    }


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))

"""Processes of this project, of whichever checkout runs this, before an upstream of the measure.

``python -m benchmarks.gateway.ours_host JOB`` starts them, prints one line of JSON about them, and
ends them when its standard input ends. All have the settings that ``pbcluster init`` writes. What
stands behind the gateway is told by the job's ``node``:

* ``stand-in``: a node that only lives (``pbcluster.testing.stand_in_nodes``): whoever listens at
  the port that it registers gets the requests;
* ``front``: ``pbnode`` whose S3, Litestream and PocketBase are fakes (``our_node``), so that what
  listens at ``upstream_port`` plays all PocketBases; the rest of it, proofs too, is real;
* ``whole``: ``pbnode`` with all its parts, and S3.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from benchmarks.gateway.processes import on_core, raise_limit, wait_until
from pbcluster.cli.child import ProcessSpec
from pbcluster.cli.http import Unreachable, ask
from pbcluster.cli.spec import service_environment
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.stand_in_nodes import StandInNodes

GATEWAY, NODE = "gateway_1", "node_1"
EMAIL, PASSWORD = "bench@example.com", "a password for the bench"
#: What would meet a load from one address on a machine that others use too, and a slow end:
#: options of ``pbgateway`` → value, if it has them.
QUIET = {
    "connections-per-address": 0,
    "requests-per-address": 0,
    "requests-per-second-per-address": 0,
    "shed-loop-lag-s": 0,
    "drain-ready-s": 0,
    "drain-s": 1,
}
#: Settings of the node: a tenant's rate is what is measured, not its limit.
WIDE = {"tenant_requests_per_second": 1_000_000, "tenant_concurrent_requests": 10_000}


def on_reactor(reactor: str, argv: Sequence[str]) -> tuple[str, ...]:
    """A service's command line with another reactor.

    :raises ValueError: it names none.
    """
    found = [each for each in argv if each.startswith("--reactor=")]
    if len(found) != 1:
        raise ValueError(f"not one --reactor in {argv}")
    return tuple(f"--reactor={reactor}" if each in found else each for each in argv)


def gateway_options() -> set[str]:
    """Names of all options of this checkout's ``pbgateway``."""
    command = [sys.executable, "-P", "-m", "pbcluster.twistd", "pbgateway", "--help"]
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, env=service_environment()
    ).stdout
    return set(re.findall(r"--([a-z][a-z0-9-]+)", told))


class Host:
    """The processes of one job.

    :param job: see ``ours.Ours``.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._options = gateway_options()
        wished = {key.replace("_", "-"): value for key, value in job["settings"].items()}
        self._unknown = sorted(set(wished) - self._options)
        known = {k: v for k, v in (QUIET | wished).items() if k in self._options}
        settings = {
            "gateway": {k.replace("-", "_"): v for k, v in known.items()},
            "node": WIDE | job["node_settings"],
        }
        self._cluster = RealCluster(
            nodes=1, members=1, settings=settings, change_spec=self._changed
        )

    def _changed(self, spec: ProcessSpec) -> ProcessSpec:
        job, argv, env = self._job, spec.argv, spec.env
        core = job["cores"].get(spec.kind, job["cores"]["other"])
        if job["reactor"] and spec.kind != "s3":
            argv = on_reactor(job["reactor"], argv)
        if spec.kind == "node" and job["node"] == "front":
            module = "benchmarks.gateway.our_node"
            argv = tuple(module if each == "pbcluster.twistd" else each for each in argv)
            env = env | {
                "PYTHONPATH": os.environ["PYTHONPATH"],
                "BENCH_UPSTREAM_PORT": str(job["upstream_port"]),
            }
        return attrs.evolve(spec, argv=tuple(on_core(core, argv)), env=env)

    @contextlib.contextmanager
    def running(self) -> Iterator[dict[str, Any]]:
        """Started, with every tenant at the gateway; what must be known of it."""
        cluster, kind = self._cluster, self._job["node"]
        with cluster, contextlib.ExitStack() as stack:
            if kind == "whole":
                cluster.start()
            elif kind == "front":
                cluster.start(*cluster.ids("member"), NODE, GATEWAY)
            else:
                nodes = stack.enter_context(self._stand_in())
                cluster.start(*cluster.ids("member"), GATEWAY)
                wait_until(nodes.registered, "the stand-in node to be registered")
            for name in self._job["tenants"]:
                if kind == "whole":
                    cluster.create_tenant(name, EMAIL, PASSWORD)
                else:
                    cluster.admin.request("POST", "/tenants?wait=0", {"name": name})
            first = self._job["tenants"][0]
            wait_until(lambda: self._answers(first), "a tenant to answer")
            yield self._told()

    def _stand_in(self) -> StandInNodes:
        plan = self._cluster.plan
        (node,) = plan.of("node")
        there = attrs.evolve(node, ports=node.ports | {"http": self._job["upstream_port"]})
        others = tuple(each for each in plan.processes if each.kind != "node")
        return StandInNodes(self._cluster.where, attrs.evolve(plan, processes=(*others, there)))

    def _answers(self, name: str) -> bool:
        url = f"{self._cluster.gateway_url}/api/health"
        try:
            return ask("GET", url, headers={"Host": self._cluster.host(name)}).status == 200
        except Unreachable:
            return False

    def _told(self) -> dict[str, Any]:
        cluster = self._cluster
        return {
            "port": cluster.plan.gateway_port,
            "pid": cluster.pid(GATEWAY),
            "node_port": cluster.plan.process(NODE).ports["http"],
            "node_pid": cluster.pid(NODE),
            "below_node": [who.pid for who in cluster.children_of(NODE)],
            "log": str(cluster.where.log(GATEWAY)),
            "data": str(cluster.where.data(GATEWAY)),
            "options": sorted(self._options),
            "unknown": self._unknown,
            "email": EMAIL,
            "password": PASSWORD,
        }


if __name__ == "__main__":
    raise_limit()
    with Host(json.loads(sys.argv[1])).running() as told:
        print(json.dumps(told), flush=True)
        sys.stdin.read()

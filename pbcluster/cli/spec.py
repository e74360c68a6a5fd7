"""From the plan to the processes: what is started how, and when the whole cluster serves.

The same specs are used by ``up`` and by the test harness (``pbcluster.testing.cluster``), so that
tests start exactly what users start. No secret is part of any argv.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

import pbcluster
from pbcluster import binaries
from pbcluster.cli import secret_files
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.child import ProcessSpec, clean_environment
from pbcluster.cli.http import ask
from pbcluster.cli.layout import BUCKET, ClusterDir, Plan, Process
from pbcluster.errors import PBClusterError
from pbcluster.seaweed import check_left_sockets, seaweed_spec

PLUGINS = {"member": "pbcp", "node": "pbnode", "gateway": "pbgateway"}
REACTOR = "pbuvloop"
#: Seconds from SIGTERM to SIGKILL: gateways finish open requests, nodes sync every tenant.
#: SeaweedFS waits 15 s for connections of its own parts (measured); what it stored needs no such
#: farewell, so it is not waited for.
STOP_GRACE_S = {"s3": 1.0, "member": 10.0, "node": 45.0, "gateway": 20.0}


def specs(where: ClusterDir, plan: Plan) -> list[ProcessSpec]:
    """How every process of the plan is started, in the plan's order."""
    return [
        _s3(where, plan, process) if process.kind == "s3" else _service(where, plan, process)
        for process in plan.processes
    ]


def _s3(where: ClusterDir, plan: Plan, process: Process) -> ProcessSpec:
    access_key, secret_key = secret_files.s3_keys(where, plan)
    seaweed = seaweed_spec(
        where.data(process.id),
        process.ports["s3"],
        access_key,
        secret_key,
        BUCKET,
        ports=process.ports,
        weed=weed_path(plan),
        host=plan.host,
        also=secret_files.accepted_s3_keys(where, plan),
        closed_by=where.tls(process.id) if plan.address else None,
    )
    return ProcessSpec(
        kind=process.kind,
        id=process.id,
        argv=seaweed.argv,
        env=clean_environment(**seaweed.env),
        cwd=seaweed.directory,
        log_file=where.log(process.id),
        address=seaweed.s3_url,
        files=dict(seaweed.files),
        probe=lambda: _serves(seaweed.s3_url, access_key, secret_key),
        stop_grace_s=STOP_GRACE_S[process.kind],
    )


def _serves(url: str, access_key: str, secret_key: str) -> bool:
    from pbcluster.cli.s3 import s3_serves  # S3's client takes longer to import than all else

    return s3_serves(url, BUCKET, access_key, secret_key)


def weed_path(plan: Plan) -> Path | None:
    """The build of SeaweedFS that ``--binary weed=PATH`` names; None: the installed one."""
    return binaries.parse_overrides(plan.binaries).get("weed")


def check_binaries(where: ClusterDir, plan: Plan) -> None:
    """SeaweedFS is the build that was tested, or one that was given. Nodes check theirs.

    :raises ConfigError: it is not, is missing, or could not start here.
    """
    if plan.joined:
        return
    for process in plan.of("s3"):
        check_left_sockets(process.ports)
    binaries.verify(("weed",), plan.binaries, cache_dir=where.run)


def _service(where: ClusterDir, plan: Plan, process: Process) -> ProcessSpec:
    data = where.data(process.id)
    twistd = (sys.executable, "-P", "-m", "pbcluster.twistd")
    run = ("--nodaemon", "--pidfile=", f"--reactor={REACTOR}")
    plugin = (PLUGINS[process.kind], f"--config={where.config(process.id)}")
    ports = process.ports
    if process.kind == "member":
        address = f"tcp://{plan.host}:{ports['requests']}"
    else:
        scheme = "https" if plan.node_tls and process.kind == "node" else "http"
        address = f"{scheme}://{plan.host}:{ports['http']}"
    return ProcessSpec(
        kind=process.kind,
        id=process.id,
        argv=twistd + run + plugin,
        env=service_environment(),
        cwd=data,
        log_file=where.log(process.id),
        address=address,
        admin=f"{plan.admin_scheme}://{plan.host}:{ports['admin']}"
        if process.kind == "member"
        else None,
        ready_file=data / "ready.json",
        stop_grace_s=_stop_grace_s(plan, process.kind),
    )


def _stop_grace_s(plan: Plan, kind: str) -> float:
    """As :data:`STOP_GRACE_S`; longer where a gateway or a node is told to drain for longer."""
    own = plan.settings.get(kind, {})
    drains = [own.get(name, 0.0) for name in ("drain_ready_s", "drain_s")]
    if kind == "node":
        drain_s = own.get("drain_on_stop_s", 0.0)
        told_s = float(drain_s) if isinstance(drain_s, int | float) else 0.0
        return max(STOP_GRACE_S[kind], told_s + 30.0)
    told = sum(float(each) for each in drains if isinstance(each, int | float))
    return max(STOP_GRACE_S[kind], told + 10.0 if told else 0.0)


def service_environment() -> dict[str, str]:
    """A clean environment in which our interpreter finds this very package and its plugins."""
    root = Path(pbcluster.__file__).parent.parent
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    # In a checkout the package lies beside twisted/plugins; site-packages is on the path anyway.
    return clean_environment(**({} if root in installed else {"PYTHONPATH": str(root)}))


def cluster_serves(where: ClusterDir, plan: Plan) -> bool:
    """Whether the gateway gives a whole HTTP answer and the control plane knows every node alive.

    Each process says by itself when it serves; this asks for what only all together can do. What
    joined another host's cluster has said enough.
    """
    if plan.joined:
        return True
    try:
        ask("GET", f"{plan.gateway_url}/", headers={"Host": plan.base_domain}, timeout_s=2.0)
        nodes = _leaders_view(plan, where.token()).get("nodes", {})
    except PBClusterError:
        return False
    return all(nodes.get(node.id, {}).get("alive") for node in plan.of("node"))


def _leaders_view(plan: Plan, token: str) -> dict[str, Any]:
    """The health that the leader tells: it alone knows who lives. Empty: nobody leads now.

    Members of other machines may lead too: any member names them.
    """
    told: list[str] = []
    for url in plan.admin_urls:
        client = AdminClient(url, token, ca=plan.admin_ca)
        try:
            health = client.health()
            if health.get("leader") is True:
                return health
            if health.get("leader") and not told:
                rows = client.all("members")
                told = [str(row["admin"]) for row in rows if row.get("role") == "leader"]
        except PBClusterError:
            continue
    for url in told:
        health = AdminClient(url, token, ca=plan.admin_ca).health()
        if health.get("leader") is True:
            return health
    return {}

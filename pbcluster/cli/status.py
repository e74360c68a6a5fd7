"""What ``status`` answers: from the plan, the supervisor's notes and the members themselves."""

from __future__ import annotations

from typing import Any

import attrs

from pbcluster.cli import procfs, state
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.cli.spec import specs
from pbcluster.errors import PBClusterError


@attrs.frozen
class Status:
    """What runs. ``phase`` is the supervisor's, "stopped" where none lives."""

    phase: str
    content: dict[str, Any]


def status(where: ClusterDir) -> Status:
    """Look at the cluster in ``where``.

    ``content`` is what ``status --json`` prints: ``gateway``, ``admin``, ``base_domain`` and
    ``processes``, each with ``kind``, ``id``, ``pid`` (None: it does not run), ``address``,
    ``admin`` (a member's own admin URL, else None), ``state`` and ``leader`` (a member that leads).

    :raises ConfigError: there is no cluster.
    """
    plan = where.load_plan()
    noted = state.read_state(where)
    runs = state.supervisor(where) is not None
    known = {}
    for process in noted.processes if noted and runs else ():
        # One that was replaced may still drain, beside its successor of the same id.
        if process.id not in known or process.state != state.LEAVING:
            known[process.id] = process
    rows = []
    for spec in specs(where, plan):
        seen = known.get(spec.id)
        who = seen.identity if seen else None
        pid = who.pid if who is not None and procfs.alive(who) else None
        what = seen.state if seen else state.STOPPED
        if pid is None and what in (state.STARTING, state.SERVING):
            what = state.DEAD  # it died a moment ago; the supervisor will say more
        rows.append(
            {
                "kind": spec.kind,
                "id": spec.id,
                "pid": pid,
                "address": spec.address,
                "admin": spec.admin,
                "state": what,
                "leader": False,
            }
        )
    _mark_leader(where, rows, plan.admin_ca)
    content = {
        "gateway": None if plan.joined else plan.gateway_url,
        "admin": plan.admin_url,
        "base_domain": plan.base_domain,
        "processes": rows,
    }
    return Status(noted.phase if noted and runs else state.STOPPED, content)


def _mark_leader(where: ClusterDir, rows: list[dict[str, Any]], ca: str) -> None:
    """Ask the members in turn who leads; the first that knows is believed."""
    members = [row for row in rows if row["kind"] == "member" and row["state"] == state.SERVING]
    for row in members:
        try:
            client = AdminClient(row["admin"], where.token(), ca=ca)
            leader = client.health(timeout_s=1.0).get("leader")
        except PBClusterError:
            continue
        for other in members:
            # A member names the leader by its id, or says of itself that it is the one.
            other["leader"] = other["id"] == leader or (leader is True and other is row)
        if leader:
            return


def summary(plan: Plan) -> list[str]:
    """The lines that tell a person where a serving cluster is."""
    if plan.joined:
        return [f"joined     the cluster at {', '.join(plan.joined)}"]
    return [
        f"gateway    {plan.gateway_url}   tenants: {plan.tenant_url('NAME')}",
        f"admin API  {plan.admin_url}/api/cp/   token in admin.token",
    ]

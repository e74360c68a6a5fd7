"""The survey ``find:<tenant>``: who really runs a tenant, and what is done if that is not right.

A survey never makes an owner. A node that has the tenant without being its owner is told its list
of assignments again, so that it releases it; an owner that knows a higher epoch than the registry
(which cannot be while the registry is right) gets a new one above it. Either is reported.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster import wire
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.executor import Executor
from pbcluster.controlplane.planner import Planner
from pbcluster.errors import PBClusterError
from pbcluster.records import TenantRecord

#: Deadline of the survey.
SURVEY_S = 1.0

log = Logger()


async def find(
    tenant_id: str,
    consensus: Consensus,
    planner: Planner,
    executor: Executor,
    clock: IReactorTime,
) -> dict[str, Any]:
    """Ask all nodes, judge, put right.

    :returns: for operators: the owner by the registry, each node's answer, who was silent, and what
        was done about what should not be.
    """
    nodes = {node.id for node in consensus.registry.nodes()}
    answers = await executor.survey(
        wire.FindTenant(tenant_id), timeout_s=SURVEY_S, among=nodes.__contains__
    )
    found = [
        each for all_ in answers.values() for each in all_ if isinstance(each, wire.TenantFound)
    ]
    # What was true when they answered may have changed since: judged by what holds now.
    tenant = consensus.registry.tenant(tenant_id)
    wrong = []
    for each in found:
        told = await _put_right(tenant, each, planner, executor, clock)
        if told:
            log.warn("{tenant}: {told}", tenant=tenant.id, told=told)
            wrong.append(told)
    return {
        "tenantID": tenant.id,
        "nodeID": tenant.node_id,
        "epoch": tenant.epoch,
        "found": [
            {"nodeID": each.node_id, "epoch": each.epoch, "state": each.state}
            for each in found
            if each.epoch
        ],
        "silent": sorted(nodes - {each.node_id for each in found}),
        "corrected": wrong,
    }


async def _put_right(
    tenant: TenantRecord,
    found: wire.TenantFound,
    planner: Planner,
    executor: Executor,
    clock: IReactorTime,
) -> str:
    """What was wrong with an answer and what was done; empty: nothing."""
    if not found.epoch:
        return ""
    if found.node_id != tenant.node_id or found.epoch < tenant.epoch:
        executor.tell_assignments(found.node_id, whole=True)
        return (
            f"{found.node_id} had it under epoch {found.epoch}, {tenant.node_id or 'nobody'} owns "
            f"it under epoch {tenant.epoch}: it was told to release it"
        )
    if found.epoch == tenant.epoch:
        return ""
    told = f"{found.node_id} has it under epoch {found.epoch}, the registry at {tenant.epoch}"
    try:
        effect = planner.replace_epoch(tenant, found.epoch, clock.seconds())
        if effect is not None:
            await executor.assign(effect)
    except PBClusterError as error:
        return f"{told}; a new epoch failed: {error.message}"
    return f"{told}: it got a new epoch"

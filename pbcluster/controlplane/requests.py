"""What nodes and gateways ask of a member, and the answers.

Every question was checked by the transport (cluster, sender, size, types). Here its sender is held
against what it says of itself, then it is answered from applied state or turned into a command with
its idempotency key. A node's word is taken for itself only: no node speaks for another. What a node
says of its tenants is ``tenant_reports``'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from pbcluster import wire
from pbcluster.config import http_url
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.executor import Executor, utc_now
from pbcluster.controlplane.incarnations import check_incarnation
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.registry import LIVING
from pbcluster.controlplane.tenant_reports import TenantReports
from pbcluster.errors import (
    Archived,
    Forbidden,
    InvalidInput,
    NotFound,
    NotLeader,
    PBClusterError,
    RemoteProtocolError,
    Unavailable,
    WrongEpoch,
)
from pbcluster.records import NodeStatus, TenantRecord, TenantStatus, check_process_id
from pbcluster.transport.curve import FORMER, REMOVED
from pbcluster.transport.interfaces import Asked

#: A look-up that waits (for an epoch, for a take-over) looks again so often.
LOOK_AGAIN_S = 0.05
#: Words that a node says of itself (region, zone, version, start id) go into the log.
MAX_WORD = 200
MAX_KEY = 200
#: As in the node's settings.
MAX_CAPACITY = 10_000
#: It stops waiting so long before its asker's deadline, so that the answer still arrives.
ANSWER_MARGIN_S = 0.1

#: Nobody is kept longer by a member that waits for an election.
ELECTION_WAIT_S = 0.8

#: Any member answers these.
FROM_APPLIED_STATE = (wire.SnapshotRequest, wire.ListMembers)

log = Logger()


class Requests:
    """Answers questions; :meth:`__call__` is the transport's ``Handler``.

    :ivar reports: what nodes said of their tenants.
    """

    def __init__(
        self,
        clock: IReactorTime,
        consensus: Consensus,
        liveness: Liveness,
        planner: Planner,
        executor: Executor,
        wall_clock: Callable[[], datetime] = utc_now,
        migrating: Migrating | None = None,
    ) -> None:
        self.reports = TenantReports(
            clock, consensus, planner, executor, wall_clock, migrating=migrating
        )
        self._migrating = migrating
        self._clock = clock
        self._consensus = consensus
        self._liveness = liveness
        self._planner = planner
        self._executor = executor
        self._wall_clock = wall_clock
        self._answers: dict[type, Callable[[Asked, Any], Awaitable[wire.Body]]] = {
            wire.RegisterNode: self._register,
            wire.Heartbeat: self._heartbeat,
            wire.Lease: self._lease,
            wire.NodeCapacity: self._capacity,
            wire.TenantReport: self.reports.report,
            wire.SetDegraded: self.reports.set_degraded,
            wire.LookupRoute: self._lookup,
            wire.SuspectNode: self._suspect,
            wire.SnapshotRequest: self._snapshot,
            wire.ListMembers: self._members,
            wire.ListTokenKeys: self._token_keys,
        }

    async def __call__(self, asked: Asked, body: wire.Body) -> wire.Body:
        """Answer one question.

        :raises RemoteProtocolError: a kind that is not asked of members.
        :raises Forbidden: the sender speaks for another node.
        :raises NotLeader: only the leader can answer this.
        """
        answer = self._answers.get(type(body))
        if answer is None:
            raise RemoteProtocolError(f"{type(body).__name__} is not asked of a member")
        self._check_present(asked)
        speaker = getattr(body, "node_id", None)
        own = not isinstance(body, wire.SuspectNode)
        if own and speaker is not None:
            if speaker != asked.sender:
                raise Forbidden(f"{asked.sender} may not speak for {speaker}")
            if asked.role not in ("", "node"):
                raise Forbidden(f"{asked.sender} is a {asked.role}, not a node")
        if len(asked.idempotency_key) > MAX_KEY:
            raise RemoteProtocolError(f"an idempotency key has at most {MAX_KEY} characters")
        if isinstance(body, wire.LookupRoute):
            needs_leader = body.place
        elif isinstance(body, wire.ListTokenKeys):
            needs_leader = body.newest
        else:
            needs_leader = not isinstance(body, FROM_APPLIED_STATE)
        if needs_leader and not self._consensus.is_leader:
            # An election takes half a second. Who asks meanwhile is better told then who won than
            # sent round in circles.
            left_s = asked.deadline - asked.arrived - ANSWER_MARGIN_S
            await self._consensus.leader_known(max(0.0, min(left_s, ELECTION_WAIT_S)))
        if needs_leader:
            self._need_leader()
        elif not self._consensus.votes:
            # It has not caught up yet, or left: what it knows may be very old.
            leader = self._consensus.leader_endpoint
            raise NotLeader("this member has no vote", leader=leader, retry_after_s=0.1)
        return await answer(asked, body)

    def _check_present(self, asked: Asked) -> None:
        """:raises Forbidden: the sender was removed from the cluster."""
        if asked.role == FORMER:
            raise Forbidden(f"{asked.sender} is no member any more")
        removed = self._consensus.registry.roster.is_former_process(asked.sender)
        if removed or asked.role == REMOVED:
            raise Forbidden(f"{asked.sender} was removed: it never comes back under this id")

    def _need_leader(self) -> None:
        if not self._consensus.is_leader:
            leader = self._consensus.leader_endpoint
            raise NotLeader("this member is not the leader", leader=leader, retry_after_s=0.1)

    # -- nodes ------------------------------------------------------------------------------------

    async def _register(self, asked: Asked, body: wire.RegisterNode) -> wire.Body:
        _check_registration(body)
        command = c.RegisterNode(
            self._wall_clock(),
            body.node_id,
            body.start_id,
            body.address,
            body.capacity,
            body.region,
            body.zone,
            body.software_version,
        )
        outcome = await self._consensus.propose(command, asked.idempotency_key)
        self._liveness.known(body.node_id, outcome.incarnation, self._clock.seconds())
        return wire.Registered(outcome.incarnation, self._executor.lists.whole(body.node_id))

    async def _heartbeat(self, asked: Asked, body: wire.Heartbeat) -> wire.Body:
        check_incarnation(self._consensus.registry, body.node_id, body.incarnation)
        self._liveness.heartbeat(body, self._clock.seconds())
        if self._migrating is not None:
            self._migrating.heartbeat(body)
        return wire.Ok()

    async def _lease(self, asked: Asked, body: wire.Lease) -> wire.Body:
        check_incarnation(self._consensus.registry, body.node_id, body.incarnation)
        # That it came is a sign of life, however long a slow disk keeps us from answering.
        self._liveness.heard(body.node_id, body.incarnation, self._clock.seconds())
        await self._consensus.read_barrier(patient=True)
        # From here to the answer nothing may wait: what is covered is decided now.
        now = self._clock.seconds()
        self._liveness.known(body.node_id, body.incarnation, now)
        granted = self._liveness.lease(body.node_id, body.incarnation, now)
        registry = self._consensus.registry
        index = registry.node(body.node_id).assignments_index
        behind = body.assignments_index != index
        return wire.LeaseAck(
            granted,
            index,
            self._liveness.not_covered(body.node_id),
            self._executor.lists.whole(body.node_id) if behind else None,
            registry.roster.index,
        )

    async def _capacity(self, asked: Asked, body: wire.NodeCapacity) -> wire.Body:
        node = self._consensus.registry.node(body.node_id)
        _check_capacity(body.max_tenants, "max_tenants")
        key, at = asked.idempotency_key, self._wall_clock()
        if node.capacity != body.max_tenants:
            await self._consensus.propose(
                c.SetNodeCapacity(at, body.node_id, body.incarnation, body.max_tenants),
                key and f"{key}/capacity",
            )
        draining = node.status is NodeStatus.DRAINING
        if body.draining != draining:
            status = NodeStatus.DRAINING if body.draining else NodeStatus.HEALTHY
            await self._consensus.propose(
                c.SetNodeStatus(at, body.node_id, body.incarnation, status),
                key and f"{key}/status",
            )
        if body.leaving and self._migrating is not None:
            self._migrating.leaves(body.node_id, body.incarnation)
        return wire.Ok()

    # -- gateways ---------------------------------------------------------------------------------

    async def _lookup(self, asked: Asked, body: wire.LookupRoute) -> wire.Body:
        # Counted from here: the transport's clock need not be ours.
        left = asked.deadline - asked.arrived
        until = self._clock.seconds() + left - ANSWER_MARGIN_S
        while True:
            try:
                return await self._look(body)
            except Unavailable as error:
                if self._clock.seconds() + LOOK_AGAIN_S >= until or isinstance(error, NotLeader):
                    raise
                if error.retry_after_s > 0.5:
                    raise
            await deferLater(self._clock, LOOK_AGAIN_S)

    async def _look(self, body: wire.LookupRoute) -> wire.Body:
        tenant = self._find(body)
        if tenant.status in (TenantStatus.ARCHIVING, TenantStatus.ARCHIVED):
            raise Archived("this tenant is archived; it answers again when it is activated")
        if tenant.status not in LIVING:
            raise NotFound(f"tenant {tenant.name!r} is {tenant.status.value}")
        if body.place:
            self._need_leader()
            effect = self._planner.place(tenant, self._clock.seconds())
            if effect is not None:
                try:
                    await self._executor.assign(effect)
                except WrongEpoch as error:
                    raise Unavailable(error.message, retry_after_s=LOOK_AGAIN_S) from None
                tenant = self._find(body)
        if tenant.epoch < body.min_epoch:
            raise Unavailable(
                f"tenant {tenant.name!r} is at epoch {tenant.epoch} here, {body.min_epoch} was "
                "asked for",
                retry_after_s=LOOK_AGAIN_S,
            )
        registry = self._consensus.registry
        return wire.RouteFound(registry.applied_index, registry.route(tenant))

    def _find(self, body: wire.LookupRoute) -> TenantRecord:
        registry = self._consensus.registry
        keys = [key for key in (body.tenant_id, body.name, body.domain) if key]
        if len(keys) != 1:
            raise RemoteProtocolError("a look-up names exactly one of id, name and domain")
        if body.domain:
            return registry.tenant_by_domain(body.domain)
        return registry.tenant(keys[0])

    async def _suspect(self, asked: Asked, body: wire.SuspectNode) -> wire.Body:
        now = self._clock.seconds()
        probe = self._liveness.doubted(body.node_id, body.incarnation, now)
        if probe is not None:
            log.info(
                "{gateway} cannot reach {node}: {reason}",
                gateway=asked.sender,
                node=body.node_id,
                reason=body.reason,
            )
            await self._executor.probe(probe)
        return wire.Ok()

    async def _snapshot(self, asked: Asked, body: wire.SnapshotRequest) -> wire.Body:
        if len(body.tenant_ids) > wire.MAX_SNAPSHOT_TENANTS:
            raise RemoteProtocolError(f"at most {wire.MAX_SNAPSHOT_TENANTS} tenants at once")
        registry = self._consensus.registry
        routes = []
        for tenant_id in body.tenant_ids:
            try:
                routes.append(registry.route(registry.tenant(tenant_id)))
            except PBClusterError:
                continue
        return wire.Snapshot(registry.applied_index, tuple(routes))

    async def _members(self, asked: Asked, body: wire.ListMembers) -> wire.Body:
        roster = self._consensus.registry.roster
        return wire.Members(
            self._consensus.registry.applied_index,
            self._consensus.members(),
            tuple(p.id for p in roster.processes() if p.role == "gateway"),
            tuple(p.id for p in roster.former_processes() if p.role == "gateway"),
        )

    async def _token_keys(self, asked: Asked, body: wire.ListTokenKeys) -> wire.Body:
        registry = self._consensus.registry
        return wire.TokenKeys(registry.applied_index, registry.token_keys.verifying())


def _check_registration(body: wire.RegisterNode) -> None:
    """:raises InvalidInput: a field cannot be used; names it."""
    check_process_id(body.node_id, "node_id")
    _check_capacity(body.capacity, "capacity")
    try:
        http_url(body.address)
    except ValueError:
        rule = "http://HOST:PORT or https://HOST:PORT"
        raise InvalidInput(
            f"address {body.address[:MAX_WORD]!r} is not allowed: {rule}",
            field="address",
            allowed=rule,
        ) from None
    for field in ("start_id", "address", "region", "zone", "software_version"):
        if len(getattr(body, field)) > MAX_WORD:
            rule = f"at most {MAX_WORD} characters"
            raise InvalidInput(f"{field} is too long: {rule}", field=field, allowed=rule)
    if not body.start_id:
        raise InvalidInput("start_id is empty", field="start_id", allowed="a random word")


def _check_capacity(capacity: int, field: str) -> None:
    if not 1 <= capacity <= MAX_CAPACITY:
        rule = f"1 to {MAX_CAPACITY}"
        raise InvalidInput(f"{field} {capacity} is not allowed: {rule}", field=field, allowed=rule)

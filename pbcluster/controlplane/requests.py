"""What nodes and gateways ask of a member, and the answers.

Every question was checked by the transport (cluster, sender, size, types). Here its sender is held
against what it says of itself, then it is answered from applied state or turned into a command with
its idempotency key. A node's word is taken for itself only: no node speaks for another.
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
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.migrating import OUTCOMES, Migrating
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.registry import LIVING
from pbcluster.errors import (
    Archived,
    Conflict,
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
#: 19 digits less a margin: no node may drive an epoch to where it cannot grow any more.
MAX_OBSERVED_EPOCH = 10**15
#: It stops waiting so long before its asker's deadline, so that the answer still arrives.
ANSWER_MARGIN_S = 0.1

#: Nobody is kept longer by a member that waits for an election.
ELECTION_WAIT_S = 0.8

#: Any member answers these.
FROM_APPLIED_STATE = (wire.SnapshotRequest, wire.ListMembers)

log = Logger()


class Requests:
    """Answers questions; :meth:`__call__` is the transport's ``Handler``."""

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
            wire.TenantReport: self._report,
            wire.SetDegraded: self._set_degraded,
            wire.LookupRoute: self._lookup,
            wire.SuspectNode: self._suspect,
            wire.SnapshotRequest: self._snapshot,
            wire.ListMembers: self._members,
            wire.ListTokenKeys: self._token_keys,
        }
        #: What a node said of a tenant that failed: soft, shown to operators, one line a tenant.
        self.failures: dict[str, str] = {}
        #: Degraded tenants whose owner cannot go on under its epoch → that epoch. Soft.
        self.stranded: dict[str, int] = {}

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
        assignments = self._consensus.registry.assignments(body.node_id)
        return wire.Registered(outcome.incarnation, assignments)

    async def _heartbeat(self, asked: Asked, body: wire.Heartbeat) -> wire.Body:
        self._check_incarnation(body.node_id, body.incarnation)
        self._liveness.heartbeat(body, self._clock.seconds())
        if self._migrating is not None:
            self._migrating.heartbeat(body)
        return wire.Ok()

    def _check_incarnation(self, node_id: str, incarnation: int) -> None:
        node = self._consensus.registry.node(node_id)
        if node.incarnation != incarnation:
            raise WrongEpoch(
                f"node {node_id!r} is at incarnation {node.incarnation}, not {incarnation}",
                incarnation=node.incarnation,
            )

    async def _lease(self, asked: Asked, body: wire.Lease) -> wire.Body:
        self._check_incarnation(body.node_id, body.incarnation)
        await self._consensus.read_barrier()
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
            registry.assignments(body.node_id) if behind else None,
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
        return wire.Ok()

    async def _report(self, asked: Asked, body: wire.TenantReport) -> wire.Body:
        try:
            self._check_incarnation(body.node_id, body.incarnation)
        except WrongEpoch as error:
            # Not the report is wrong but the standing: it must be told again, not thrown away.
            told = f"{error.message}: register, then repeat"
            raise Unavailable(told, retry_after_s=0.2) from None
        if body.outcome in OUTCOMES and self._migrating is not None:
            await self._migrating.reported(body)
            return wire.Ok()
        tenant = self._consensus.registry.tenant(body.tenant_id)
        if (tenant.node_id, tenant.epoch) != (body.node_id, body.epoch):
            # Late, from before a take-over: true then, of no consequence now.
            return wire.Ok()
        handlers = {
            "ready": self._ready,
            "refused": self._refused,
            "failed": self._failed,
            "released": self._released,
            "stopped": self._stopped,
            "ended": self._ended,
            "deleted": self._deleted,
            "settled": self._settled,
            "restored": self._restored,
        }
        if not 0 <= body.observed_epoch <= MAX_OBSERVED_EPOCH:
            raise InvalidInput(
                f"observed_epoch {body.observed_epoch} is not allowed: 0 to {MAX_OBSERVED_EPOCH}",
                field="observed_epoch",
                allowed=f"0 to {MAX_OBSERVED_EPOCH}",
            )
        handler = handlers.get(body.outcome)
        if handler is None:
            known = ", ".join((*handlers, *sorted(OUTCOMES)))
            raise RemoteProtocolError(f"outcome {body.outcome!r} is unknown; known are: {known}")
        await handler(asked.idempotency_key, tenant, body)
        return wire.Ok()

    async def _ready(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        self.failures.pop(tenant.id, None)
        if self._migrating is not None:
            await self._migrating.ready(tenant.id, body.epoch)
        if tenant.ever_ready and tenant.status is TenantStatus.ACTIVE:
            return
        command = c.MarkReady(self._wall_clock(), tenant.id, body.node_id, body.epoch)
        await self._consensus.propose(command, key)

    async def _refused(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        if tenant.degraded and self.stranded.get(tenant.id) != tenant.epoch:
            self.stranded[tenant.id] = tenant.epoch
            log.critical(
                "{tenant} is degraded and its owner {node} cannot go on: {detail}; "
                "only an operator gives it away (pbcluster tenants give-away)",
                tenant=tenant.id,
                node=body.node_id,
                detail=body.detail,
            )
        effect = self._planner.replace_epoch(tenant, body.observed_epoch, self._clock.seconds())
        log.warn(
            "{node} cannot own {tenant} under epoch {epoch}: {detail}",
            node=body.node_id,
            tenant=tenant.id,
            epoch=body.epoch,
            detail=body.detail,
        )
        self.stranded.pop(tenant.id, None)
        if effect is None:
            # Done only when a new epoch is committed: told too early and followed by a crash, it
            # would leave a tenant that nobody brings up again.
            raise Unavailable(f"tenant {tenant.name!r} is being placed", retry_after_s=0.2)
        try:
            await self._executor.assign(effect)
        except (Conflict, WrongEpoch) as error:
            # Something else was committed first. Whether the report still matters shows when it
            # comes again; a refusal would make the node forget it.
            raise Unavailable(error.message, retry_after_s=0.2) from None

    async def _failed(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        self.failures[tenant.id] = body.detail[:500]

    async def _released(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        self.failures.pop(tenant.id, None)
        command = c.TenantReleased(self._wall_clock(), tenant.id, body.node_id, body.epoch)
        await self._consensus.propose(command, key)

    async def _ended(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        self.failures.pop(tenant.id, None)
        command = c.TenantEnded(self._wall_clock(), tenant.id, body.node_id, body.epoch)
        await self._consensus.propose(command, key)

    async def _deleted(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        """After a recovery the registry may be older than a deletion: it is made again."""
        log.warn("{tenant} is deleted, says S3: {detail}", tenant=tenant.id, detail=body.detail)
        await self._consensus.propose(c.DeleteTenant(self._wall_clock(), tenant.id), key)

    async def _stopped(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        if tenant.status is TenantStatus.IDLE:
            return
        at = self._wall_clock()
        command = c.SetTenantStatus(at, tenant.id, body.epoch, TenantStatus.IDLE)
        await self._consensus.propose(command, key)

    async def _settled(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        if tenant.wanted_durability is None or tenant.wanted_durability.value != body.detail:
            return  # an operator has changed its mind
        wanted = tenant.wanted_durability
        at = self._wall_clock()
        command = c.SettleDurability(at, tenant.id, body.node_id, body.epoch, wanted)
        await self._consensus.propose(command, key)

    async def _restored(self, key: str, tenant: TenantRecord, body: wire.TenantReport) -> None:
        effect = self._planner.renew(tenant, self._clock.seconds())
        if effect is None:
            raise Unavailable(f"tenant {tenant.name!r} is being placed", retry_after_s=0.2)
        await self._executor.assign(effect)

    async def _set_degraded(self, asked: Asked, body: wire.SetDegraded) -> wire.Body:
        self._check_incarnation(body.node_id, body.incarnation)
        command = c.SetDegraded(
            self._wall_clock(),
            body.tenant_id,
            body.node_id,
            body.epoch,
            body.incarnation,
            body.degraded,
        )
        await self._consensus.propose(command, asked.idempotency_key)
        if body.degraded:
            log.critical(
                "{tenant} is degraded: {node} acknowledges writes that only its disk has",
                tenant=body.tenant_id,
                node=body.node_id,
            )
        else:
            log.info("{tenant} is degraded no more: all is in S3", tenant=body.tenant_id)
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

"""The registry: all replicated state, changed only by :meth:`Registry.apply`, in log order.

Invariants, held after every command:

* a tenant's epoch never goes back, and each assignment has an epoch of its own;
* a tenant has at most one node; ``tenants_of`` is the exact inverse of ``TenantRecord.node_id``;
* living tenants have different names, and no host name is that of two; an id never comes back,
  deleted tenants stay as tombstones;
* a node's ``assignments_index`` is the log index of the last change to its list of tenants;
* applying the same log gives the same state, from the beginning or from a snapshot: no clock, no
  random numbers, no I/O.

It says nothing of who lives (``liveness``) and decides nothing (``planner``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import attrs
import msgspec

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.outcomes import Outcome, Outcomes
from pbcluster.controlplane.registry_image import RegistryImage, RegistryState
from pbcluster.controlplane.roster import Roster
from pbcluster.controlplane.token_keys import TokenKeys
from pbcluster.errors import (
    Conflict,
    NoCapacity,
    NotFound,
    PBClusterError,
    SessionExpired,
    WrongEpoch,
)
from pbcluster.records import (
    NodeRecord,
    NodeStatus,
    TenantRecord,
    TenantStatus,
)

#: Starts remembered of each node, so that a process that was replaced cannot come back as a new
#: one; it would have to sleep through this many starts of its successor.
MAX_STARTS = 32
#: Statuses of a tenant that has an owner and routes.
LIVING = frozenset({TenantStatus.CREATED, TenantStatus.ACTIVE, TenantStatus.IDLE})


@attrs.frozen
class Applied:
    """The effects of one applied command.

    :ivar changed_nodes: nodes whose list of assignments changed.
    :ivar repeated: the key was known; nothing changed, and ``outcome`` is the first one's, or an
        error if that is forgotten.
    """

    outcome: Outcome
    broadcast: wire.Broadcast | None = None
    changed_nodes: tuple[str, ...] = ()
    repeated: bool = False


class Registry:
    """Everything the control plane must not forget."""

    def __init__(self, base_domain: str) -> None:
        """
        :param base_domain: a tenant's domain is ``NAME.base_domain``.
        """
        self.base_domain = base_domain
        self.applied_index = 0
        self.last_broadcast = 0
        #: The control plane's own members.
        self.roster = Roster()
        #: What signs platform tokens.
        self.token_keys = TokenKeys()
        self._tenants: dict[str, TenantRecord] = {}
        self._nodes: dict[str, NodeRecord] = {}
        self._names: dict[str, str] = {}
        self._domains: dict[str, str] = {}
        self._tenants_of: dict[str, set[str]] = {}
        self._outcomes = Outcomes()
        #: Node → its former ``start_id``s, the newest last.
        self._starts: dict[str, list[str]] = {}
        self._appliers: dict[type, Callable[[int, Any], _Change]] = {
            c.CreateTenant: self._create_tenant,
            c.UpdateTenant: self._update_tenant,
            c.AssignTenant: self._assign_tenant,
            c.MarkReady: self._mark_ready,
            c.SetTenantStatus: self._set_tenant_status,
            c.DeleteTenant: self._delete_tenant,
            c.TenantReleased: self._tenant_released,
            c.RegisterNode: self._register_node,
            c.SetNodeStatus: self._set_node_status,
            c.SetNodeCapacity: self._set_node_capacity,
            c.SetMember: self._set_member,
            c.RotateTokenKey: self._rotate_token_key,
            c.NoteToken: self._note_token,
        }

    # -- reading ----------------------------------------------------------------------------------

    def tenant(self, key: str) -> TenantRecord:
        """A tenant by id (deleted ones too) or by the name of a living one.

        :raises NotFound: there is none.
        """
        record = self._tenants.get(key) or self._tenants.get(self._names.get(key, ""))
        if record is None:
            raise NotFound(f"no tenant {key!r}")
        return record

    def tenant_by_domain(self, domain: str) -> TenantRecord:
        """The tenant that answers to a custom domain. :raises NotFound: there is none."""
        record = self._tenants.get(self._domains.get(domain, ""))
        if record is None:
            raise NotFound(f"no tenant answers to {domain!r}")
        return record

    def outcome(self, key: str) -> Outcome | None:
        """What the command under an idempotency key came to; None: there was none.

        :raises SessionExpired: it is forgotten.
        """
        return self._outcomes.recall(key)

    def node(self, node_id: str) -> NodeRecord:
        """A node by id. :raises NotFound: it never registered."""
        record = self._nodes.get(node_id)
        if record is None:
            raise NotFound(f"no node {node_id!r}")
        return record

    def tenants(self) -> Iterator[TenantRecord]:
        """All tenants that are not deleted, in the order of creation."""
        return (t for t in self._tenants.values() if t.status is not TenantStatus.DELETED)

    def nodes(self) -> Iterator[NodeRecord]:
        """All nodes that ever registered."""
        return iter(self._nodes.values())

    def tenants_of(self, node_id: str) -> frozenset[str]:
        """Ids of the tenants that a node has, those that are being deleted included."""
        return frozenset(self._tenants_of.get(node_id, ()))

    def count_of(self, node_id: str) -> int:
        """How many tenants a node has."""
        return len(self._tenants_of.get(node_id, ()))

    def hosts_of(self, tenant: TenantRecord) -> tuple[str, ...]:
        """All host names of a tenant."""
        return (tenant.domain, *tenant.custom_domains)

    def assignments(self, node_id: str) -> wire.NodeAssignments:
        """Everything a node must own. :raises NotFound: it never registered."""
        node = self.node(node_id)
        owned = (self._tenants[tenant_id] for tenant_id in sorted(self.tenants_of(node_id)))
        return wire.NodeAssignments(
            node_id,
            node.incarnation,
            node.assignments_index,
            tuple(self._assignment(t) for t in owned if t.status in LIVING),
        )

    def _assignment(self, tenant: TenantRecord) -> wire.Assignment:
        return wire.Assignment(
            tenant_id=tenant.id,
            epoch=tenant.epoch,
            name=tenant.name,
            hosts=self.hosts_of(tenant),
            ever_ready=tenant.ever_ready,
            durability=tenant.durability,
            wanted=tenant.status is not TenantStatus.IDLE,
            quotas=tenant.quotas,
            initial_superuser=tenant.initial_superuser,
            degraded=tenant.degraded,
        )

    def route(self, tenant: TenantRecord) -> wire.Route:
        """The way to a tenant. :raises NotFound: it has no owner."""
        if tenant.status not in LIVING or not tenant.node_id:
            raise NotFound(f"tenant {tenant.name!r} has no node")
        node = self.node(tenant.node_id)
        return wire.Route(
            tenant_id=tenant.id,
            name=tenant.name,
            node_id=node.id,
            address=node.address,
            incarnation=node.incarnation,
            epoch=tenant.epoch,
            hosts=self.hosts_of(tenant),
            max_body_bytes=tenant.quotas.max_body_bytes,
        )

    # -- snapshots --------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The whole state."""
        return self.image().to_bytes()

    def image(self, *, for_operators: bool = False) -> RegistryImage:
        """The whole state as it is now, quickly: to be encoded later, in any thread.

        :param for_operators: it leaves the control plane: the keys that sign tokens do not.
        """
        return RegistryImage(
            RegistryState(
                self.applied_index,
                self.last_broadcast,
                list(self._tenants.values()),
                list(self._nodes.values()),
                list(self._outcomes.newest()),
                # Its lists are replaced, never changed.
                dict(self._starts),
                list(self.roster.members()),
                list(self.roster.former()),
                self.roster.index,
                self._outcomes.spent(),
                [] if for_operators else list(self.token_keys),
            )
        )

    @classmethod
    def from_bytes(cls, base_domain: str, data: bytes) -> Registry:
        """The state that :meth:`to_bytes` wrote. :raises msgspec.DecodeError: it is none."""
        state = msgspec.msgpack.decode(data, type=RegistryState)
        registry = cls(base_domain)
        registry.applied_index = state.applied_index
        registry.last_broadcast = state.last_broadcast
        registry._outcomes = Outcomes(state.outcomes, state.spent_keys)
        registry._starts = state.starts
        registry.roster = Roster(state.members, state.former_members, state.members_index)
        registry.token_keys = TokenKeys(state.token_keys)
        for node in state.nodes:
            registry._nodes[node.id] = node
        for tenant in state.tenants:
            registry._put(tenant)
        return registry

    # -- applying ---------------------------------------------------------------------------------

    def apply(self, index: int, keyed: c.Keyed) -> Applied:
        """Apply the command at log index ``index``, the one after ``applied_index``.

        A command that may not be carried out changes nothing but the index; its outcome says why.
        """
        if index != self.applied_index + 1:
            raise AssertionError(f"index {index} applied after {self.applied_index}")
        self.applied_index = index
        try:
            known = self._outcomes.recall(keyed.key)
        except SessionExpired as error:
            return Applied(Outcome(index, error=wire.ErrorReply.of(error)), repeated=True)
        if known is not None:
            return Applied(known, repeated=True)
        try:
            change = self._appliers[type(keyed.command)](index, keyed.command)
        except PBClusterError as error:
            change = _Change(Outcome(index, error=wire.ErrorReply.of(error)))
        self._outcomes.remember(keyed.key, change.outcome)
        return Applied(change.outcome, self._numbered(change), change.nodes)

    def members_changed(self, index: int, left: Collection[str]) -> Applied:
        """The entry at log index ``index``, the next one, changed the group.

        :param left: who is no member any more: their ids never come back.
        """
        self.skip(index)
        self.roster.left(left)
        self.roster.index = index
        change = _Change(Outcome(index), topic="members.changed")
        return Applied(change.outcome, self._numbered(change))

    def skip(self, index: int) -> None:
        """The entry at log index ``index``, the next one, is none of ours: only the index moves."""
        if index != self.applied_index + 1:
            raise AssertionError(f"index {index} skipped after {self.applied_index}")
        self.applied_index = index

    def _numbered(self, change: _Change) -> wire.Broadcast | None:
        if change.topic == "":
            return None
        broadcast = wire.Broadcast(
            topic=change.topic,
            index=self.applied_index,
            previous=self.last_broadcast,
            tenant_id=change.outcome.tenant_id,
            node_id=change.node_id,
            incarnation=change.outcome.incarnation,
            route=change.route,
        )
        self.last_broadcast = self.applied_index
        return broadcast

    def _put(self, tenant: TenantRecord) -> None:
        """Store a tenant and keep every index of it right."""
        old = self._tenants.get(tenant.id)
        if old is not None:
            self._forget_indexes(old)
        self._tenants[tenant.id] = tenant
        if tenant.status in LIVING or tenant.status is TenantStatus.ARCHIVED:
            self._names[tenant.name] = tenant.id
            self._domains.update(dict.fromkeys(tenant.custom_domains, tenant.id))
        if tenant.node_id:
            self._tenants_of.setdefault(tenant.node_id, set()).add(tenant.id)

    def _forget_indexes(self, tenant: TenantRecord) -> None:
        if self._names.get(tenant.name) == tenant.id:
            del self._names[tenant.name]
        for domain in tenant.custom_domains:
            if self._domains.get(domain) == tenant.id:
                del self._domains[domain]
        self._tenants_of.get(tenant.node_id, set()).discard(tenant.id)

    def _touch_node(self, index: int, node_id: str) -> None:
        node = self._nodes[node_id]
        self._nodes[node_id] = msgspec.structs.replace(node, assignments_index=index)

    def _living(self, tenant_id: str) -> TenantRecord:
        tenant = self.tenant(tenant_id)
        if tenant.status not in LIVING:
            raise Conflict(f"tenant {tenant.name!r} is {tenant.status.value}")
        return tenant

    @staticmethod
    def _check_version(tenant: TenantRecord, expected: int) -> None:
        if expected not in (0, tenant.version):
            raise Conflict(
                f"tenant {tenant.name!r} was changed meanwhile: it has version {tenant.version}, "
                f"not {expected}",
                version=tenant.version,
            )

    # -- tenants --

    def _create_tenant(self, index: int, command: c.CreateTenant) -> _Change:
        if command.name in self._names:
            raise Conflict(f"the name {command.name!r} is taken", field="name")
        if command.tenant_id in self._tenants:
            raise Conflict(f"the id {command.tenant_id!r} was used before", field="id")
        self._put(
            TenantRecord(
                id=command.tenant_id,
                name=command.name,
                domain=command.domain,
                status=TenantStatus.CREATED,
                created=command.at,
                updated=command.at,
                version=index,
                durability=command.durability,
                metadata=command.metadata,
                quotas=command.quotas,
                initial_superuser=command.initial_superuser,
            )
        )
        return _Change(Outcome(index, command.tenant_id))

    def _update_tenant(self, index: int, command: c.UpdateTenant) -> _Change:
        tenant = self._living(command.tenant_id)
        self._check_version(tenant, command.expected_version)
        changed = {
            name: value
            for name in ("metadata", "quotas", "custom_domains")
            if (value := getattr(command, name)) is not None
        }
        for domain in changed.get("custom_domains", ()):
            self._check_free(domain, tenant)
        updated = msgspec.structs.replace(tenant, **changed, version=index, updated=command.at)
        self._put(updated)
        if changed.keys() <= {"metadata"} or not tenant.node_id:
            return _Change(Outcome(index, tenant.id), topic="tenant.updated")
        self._touch_node(index, tenant.node_id)
        return _Change(
            Outcome(index, tenant.id),
            nodes=(tenant.node_id,),
            topic="tenant.updated",
            # Gateways follow at once: a domain that was removed must not answer any more.
            route=self.route(updated),
        )

    def _check_free(self, domain: str, tenant: TenantRecord) -> None:
        """:raises Conflict: another tenant answers to this host name."""
        own = self._tenants.get(self._names.get(domain.partition(".")[0], ""))
        holder = own if own is not None and own.domain == domain else None
        holder = holder or self._tenants.get(self._domains.get(domain, ""))
        if holder is not None and holder.id != tenant.id:
            told = f"the domain {domain!r} belongs to tenant {holder.name!r}"
            raise Conflict(told, field="customDomains")

    def _assign_tenant(self, index: int, command: c.AssignTenant) -> _Change:
        tenant = self._living(command.tenant_id)
        node = self.node(command.node_id)
        if tenant.epoch != command.expected_epoch:
            raise WrongEpoch(
                f"tenant {tenant.name!r} is at epoch {tenant.epoch}, not {command.expected_epoch}"
            )
        if node.status in (NodeStatus.DRAINING, NodeStatus.DOWN):
            raise NoCapacity(f"node {node.id!r} is {node.status.value}")
        if tenant.node_id != node.id and self.count_of(node.id) >= node.capacity:
            raise NoCapacity(f"node {node.id!r} has its {node.capacity} tenants")
        epoch = max(tenant.epoch, command.above_epoch) + 1
        moved = msgspec.structs.replace(
            tenant, node_id=node.id, epoch=epoch, version=index, updated=command.at
        )
        self._put(moved)
        nodes = tuple(dict.fromkeys(n for n in (tenant.node_id, node.id) if n))
        for changed in nodes:
            self._touch_node(index, changed)
        return _Change(
            Outcome(index, tenant.id, epoch, node.incarnation),
            nodes=nodes,
            topic="tenant.moved",
            node_id=node.id,
            route=self.route(moved),
        )

    def _mark_ready(self, index: int, command: c.MarkReady) -> _Change:
        tenant = self._owned(command.tenant_id, command.node_id, command.epoch)
        self._put(
            msgspec.structs.replace(
                tenant,
                ever_ready=True,
                status=TenantStatus.ACTIVE,
                initial_superuser=None,
                version=index,
                updated=command.at,
            )
        )
        return _Change(Outcome(index, tenant.id, tenant.epoch))

    def _set_tenant_status(self, index: int, command: c.SetTenantStatus) -> _Change:
        tenant = self._living(command.tenant_id)
        if tenant.epoch != command.epoch:
            raise WrongEpoch(f"tenant {tenant.name!r} is at epoch {tenant.epoch}")
        self._put(
            msgspec.structs.replace(
                tenant, status=command.status, version=index, updated=command.at
            )
        )
        return _Change(Outcome(index, tenant.id, tenant.epoch))

    def _delete_tenant(self, index: int, command: c.DeleteTenant) -> _Change:
        tenant = self.tenant(command.tenant_id)
        if tenant.status in (TenantStatus.DELETING, TenantStatus.DELETED):
            return _Change(Outcome(index, tenant.id, tenant.epoch))
        self._check_version(tenant, command.expected_version)
        status = TenantStatus.DELETING if tenant.node_id else TenantStatus.DELETED
        self._put(
            msgspec.structs.replace(
                tenant, status=status, initial_superuser=None, version=index, updated=command.at
            )
        )
        nodes = (tenant.node_id,) if tenant.node_id else ()
        for changed in nodes:
            self._touch_node(index, changed)
        return _Change(Outcome(index, tenant.id, tenant.epoch), nodes=nodes, topic="tenant.deleted")

    def _tenant_released(self, index: int, command: c.TenantReleased) -> _Change:
        tenant = self.tenant(command.tenant_id)
        if not tenant.node_id or (tenant.node_id, tenant.epoch) != (command.node_id, command.epoch):
            raise WrongEpoch(f"tenant {tenant.name!r} is at epoch {tenant.epoch}")
        deleting = tenant.status is TenantStatus.DELETING
        self._put(
            msgspec.structs.replace(
                tenant,
                status=TenantStatus.DELETED if deleting else tenant.status,
                node_id="",
                version=index,
                updated=command.at,
            )
        )
        if deleting:
            # It left the node's list when the deletion began.
            return _Change(Outcome(index, tenant.id, tenant.epoch))
        self._touch_node(index, command.node_id)
        return _Change(Outcome(index, tenant.id, tenant.epoch), nodes=(command.node_id,))

    def _owned(self, tenant_id: str, node_id: str, epoch: int) -> TenantRecord:
        tenant = self._living(tenant_id)
        if (tenant.node_id, tenant.epoch) != (node_id, epoch):
            raise WrongEpoch(
                f"tenant {tenant.name!r} belongs to {tenant.node_id!r} under epoch {tenant.epoch}"
            )
        return tenant

    # -- nodes --

    def _register_node(self, index: int, command: c.RegisterNode) -> _Change:
        known = self._nodes.get(command.node_id)
        if known is not None and known.start_id == command.start_id:
            return _Change(Outcome(index, incarnation=known.incarnation))
        if command.start_id in self._starts.get(command.node_id, ()):
            raise WrongEpoch(f"this start of node {command.node_id!r} was replaced by a newer one")
        if known is not None:
            starts = [*self._starts.get(known.id, ()), known.start_id]
            self._starts[known.id] = starts[-MAX_STARTS:]
            self._end_deleting(index, known.id, command)
        incarnation = known.incarnation + 1 if known is not None else 1
        self._nodes[command.node_id] = NodeRecord(
            id=command.node_id,
            address=command.address,
            capacity=command.capacity,
            status=NodeStatus.HEALTHY,
            incarnation=incarnation,
            start_id=command.start_id,
            region=command.region,
            zone=command.zone,
            software_version=command.software_version,
            version=index,
            assignments_index=index,
        )
        return _Change(
            Outcome(index, incarnation=incarnation),
            nodes=(command.node_id,),
            topic="node.up",
            node_id=command.node_id,
        )

    def _end_deleting(self, index: int, node_id: str, command: c.RegisterNode) -> None:
        """A new start never had what was being deleted, so it will never report its release."""
        for tenant_id in sorted(self.tenants_of(node_id)):
            tenant = self._tenants[tenant_id]
            if tenant.status is TenantStatus.DELETING:
                ended = msgspec.structs.replace(
                    tenant,
                    status=TenantStatus.DELETED,
                    node_id="",
                    version=index,
                    updated=command.at,
                )
                self._put(ended)

    def _set_node_status(self, index: int, command: c.SetNodeStatus) -> _Change:
        node = self._of_incarnation(command.node_id, command.incarnation)
        if node.status is command.status:
            return _Change(Outcome(index, incarnation=node.incarnation))
        self._nodes[node.id] = msgspec.structs.replace(node, status=command.status, version=index)
        topics = {NodeStatus.DOWN: "node.down", NodeStatus.DRAINING: "node.draining"}
        return _Change(
            Outcome(index, incarnation=node.incarnation),
            topic=topics.get(command.status, "node.up"),
            node_id=node.id,
        )

    def _set_node_capacity(self, index: int, command: c.SetNodeCapacity) -> _Change:
        node = self._of_incarnation(command.node_id, command.incarnation)
        self._nodes[node.id] = msgspec.structs.replace(
            node, capacity=command.capacity, version=index
        )
        return _Change(Outcome(index, incarnation=node.incarnation))

    # -- members --

    def _set_member(self, index: int, command: c.SetMember) -> _Change:
        changed = self.roster.put(command.member)
        if changed:
            self.roster.index = index
        return _Change(Outcome(index), topic="members.changed" if changed else "")

    # -- keys of platform tokens --

    def _rotate_token_key(self, index: int, command: c.RotateTokenKey) -> _Change:
        self.token_keys.rotate(command)
        return _Change(Outcome(index), topic="keys.changed")

    def _note_token(self, index: int, command: c.NoteToken) -> _Change:
        self.token_keys.note(command)
        return _Change(Outcome(index))

    def _of_incarnation(self, node_id: str, incarnation: int) -> NodeRecord:
        node = self.node(node_id)
        if node.incarnation != incarnation:
            raise WrongEpoch(f"node {node_id!r} is at incarnation {node.incarnation}")
        return node


@attrs.frozen
class _Change:
    outcome: Outcome
    nodes: tuple[str, ...] = ()
    topic: str = ""
    node_id: str = ""
    route: wire.Route | None = None

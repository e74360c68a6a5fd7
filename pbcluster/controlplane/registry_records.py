"""What the registry knows of tenants and nodes, indexed, and the ways to read it. Pure.

Stored by :meth:`RegistryRecords._put` and its like only, which keep every index right; what is
stored when, is for the classes above it: ``tenant_changes`` and ``node_changes`` apply commands,
``registry`` is the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import heappush

import attrs
import msgspec

from pbcluster import wire
from pbcluster.controlplane import migration as m
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.tenant_order import TenantOrder
from pbcluster.controlplane.touched import Touched
from pbcluster.controlplane.transitions import check_tenant
from pbcluster.errors import Conflict, NotFound, WrongEpoch
from pbcluster.records import MigrationRecord, NodeRecord, TenantRecord, TenantStatus

#: Statuses of a tenant that has an owner and routes.
LIVING = frozenset({TenantStatus.CREATED, TenantStatus.ACTIVE, TenantStatus.IDLE})

#: Statuses of an end that a node has to carry out, and what it is told.
_ENDINGS = {TenantStatus.ARCHIVING: "archived", TenantStatus.DELETING: "deleted"}


def may_end(tenant: TenantRecord) -> str:
    """What a node would be ordered to end of a tenant, empty: nothing."""
    if tenant.status is TenantStatus.DELETED:
        return "" if tenant.purged else "purged"
    return _ENDINGS.get(tenant.status, "")


def ending_of(tenant: TenantRecord) -> str:
    """What the node of a tenant is ordered to end of it, empty: it serves, or has no node."""
    return may_end(tenant) if tenant.node_id else ""


@attrs.frozen
class Change:
    """What a command did.

    :ivar nodes: those whose list of assignments changed. :ivar topic: of its broadcast; empty: it
        has none.
    """

    outcome: Outcome
    nodes: tuple[str, ...] = ()
    topic: str = ""
    node_id: str = ""
    route: wire.Route | None = None


class RegistryRecords:
    """See the module.

    :ivar touched: which tenants of a node its list may show otherwise than before.
    """

    def __init__(self, base_domain: str) -> None:
        """
        :param base_domain: a tenant's domain is ``NAME.base_domain``.
        """
        self.base_domain = base_domain
        self._tenants: dict[str, TenantRecord] = {}
        self._nodes: dict[str, NodeRecord] = {}
        self._names: dict[str, str] = {}
        self._domains: dict[str, str] = {}
        self._tenants_of: dict[str, set[str]] = {}
        #: Derived from a tenant's record and its migration's; made when it is asked for.
        self._assignments: dict[str, wire.Assignment | None] = {}
        self.touched = Touched()
        self._order = TenantOrder(())
        self._by_status: dict[TenantStatus, set[str]] = {}
        #: Tenants whose end a node is ordered to carry out.
        self._ending: set[str] = set()
        #: Tenants that have an end before them, now, and no node to carry it out.
        self._without_node: dict[str, None] = {}
        #: A heap of those that are to be purged, but not before that time. What changed meanwhile
        #: is found out when its time has come.
        self._purges: list[tuple[datetime, str]] = []
        self._degraded: set[str] = set()
        #: Node → its former ``start_id``s, the newest last.
        self._starts: dict[str, list[str]] = {}
        #: Tenant → its last migration; those under way, and those whose old route is kept, the
        #: oldest first.
        self._migrations: dict[str, MigrationRecord] = {}
        self._active_migrations: dict[str, None] = {}
        self._old_routes: dict[str, None] = {}

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

    def node(self, node_id: str) -> NodeRecord:
        """A node by id. :raises NotFound: it never registered."""
        record = self._nodes.get(node_id)
        if record is None:
            raise NotFound(f"no node {node_id!r}")
        return record

    def tenants(self) -> Iterator[TenantRecord]:
        """All tenants that are not deleted, in the order of creation."""
        return (t for t in self._tenants.values() if t.status is not TenantStatus.DELETED)

    def degraded(self) -> list[TenantRecord]:
        """Tenants with acknowledged writes that are on one disk only, by name."""
        return sorted((self._tenants[each] for each in self._degraded), key=lambda t: t.name)

    def tenant_counts(self) -> dict[str, int]:
        """Status → number of tenants that have it, without deleted ones."""
        counts = {status.value: len(ids) for status, ids in self._by_status.items() if ids}
        counts.pop(TenantStatus.DELETED.value, None)
        return counts

    def tenant_order(self) -> TenantOrder:
        """Ids of all tenants that are not deleted, in the orders in which they are listed."""
        return self._order

    def nodes(self) -> Iterator[NodeRecord]:
        """All nodes that ever registered, without those that were removed and have nothing left."""
        return (n for n in self._nodes.values() if not n.removed or self.count_of(n.id))

    def tenants_of(self, node_id: str) -> frozenset[str]:
        """Ids of the tenants that a node has, those that are being deleted included."""
        return frozenset(self._tenants_of.get(node_id, ()))

    def has(self, node_id: str, tenant_id: str) -> bool:
        """Whether a node has a tenant."""
        return tenant_id in self._tenants_of.get(node_id, ())

    def count_of(self, node_id: str) -> int:
        """How many tenants a node has."""
        return len(self._tenants_of.get(node_id, ()))

    def coming(self, but: str = "") -> dict[str, int]:
        """Node → how many tenants, ``but`` left out, are on their way to it and not its own yet."""
        found: dict[str, int] = {}
        for tenant_id in self._active_migrations:
            record = self._migrations[tenant_id]
            if record.phase in m.BEFORE_SWITCH and tenant_id != but:
                found[record.target_node] = found.get(record.target_node, 0) + 1
        return found

    def is_warm(self, tenant_id: str, node_id: str) -> bool:
        """Whether a node restored a copy of a tenant that is to be moved there."""
        return self.has_copy(tenant_id) and self._migrations[tenant_id].target_node == node_id

    def has_copy(self, tenant_id: str) -> bool:
        """Whether any node that does not own it restored a copy of a tenant, to have it next."""
        record = self._migrations.get(tenant_id)
        return record is not None and record.warmed and record.phase in m.BEFORE_SWITCH

    def hosts_of(self, tenant: TenantRecord) -> tuple[str, ...]:
        """All host names of a tenant."""
        return (tenant.domain, *tenant.custom_domains)

    def assignments(self, node_id: str) -> wire.NodeAssignments:
        """Everything a node must own. :raises NotFound: it never registered."""
        node = self.node(node_id)
        owned = map(self._assignment, sorted(self._tenants_of.get(node_id, ())))
        return wire.NodeAssignments(
            node_id,
            node.incarnation,
            node.assignments_index,
            tuple([each for each in owned if each is not None]),
            self.warming(node_id),
        )

    def assignments_among(
        self, node_id: str, tenant_ids: Iterable[str]
    ) -> tuple[tuple[wire.Assignment, ...], tuple[str, ...]]:
        """What a node must own of some tenants, and the ids of those that it must not have."""
        here = self._tenants_of.get(node_id, ())
        found = {each: self._assignment(each) if each in here else None for each in tenant_ids}
        return (
            tuple([row for row in found.values() if row is not None]),
            tuple([each for each, row in found.items() if row is None]),
        )

    def warming(self, node_id: str) -> tuple[wire.Warming, ...]:
        """What a node must restore without owning it."""
        return tuple(self._warming(node_id)) if self._active_migrations else ()

    def _warming(self, node_id: str) -> Iterator[wire.Warming]:
        for tenant_id in sorted(self._active_migrations):
            record = self._migrations[tenant_id]
            order = m.order_to_target(record) if record.target_node == node_id else None
            if order is not None:
                yield order

    def _assignment(self, tenant_id: str) -> wire.Assignment | None:
        """What its node must know of a tenant; None: it is not to have it. Kept until the tenant or
        its migration changes, since a whole list has hundreds."""
        try:
            return self._assignments[tenant_id]
        except KeyError:
            tenant = self._tenants[tenant_id]
            wanted = tenant.status in LIVING or ending_of(tenant)
            made = self._new_assignment(tenant) if wanted else None
            self._assignments[tenant_id] = made
            return made

    def _new_assignment(self, tenant: TenantRecord) -> wire.Assignment:
        moving = self._migrations.get(tenant.id)
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
            logs=tenant.logs,
            handing_over=m.order_to_source(moving),
            released_epoch=m.released_epoch(moving, tenant.epoch),
            ending=ending_of(tenant),
            durable_reads=tenant.durable_reads,
            on_s3_outage=tenant.on_s3_outage,
            wanted_durability=tenant.wanted_durability,
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

    # -- storing ----------------------------------------------------------------------------------

    def _put_all(self, tenants: Iterable[TenantRecord]) -> None:
        """Store many, of which none is there yet."""
        for tenant in tenants:
            self._store(tenant)
        self._order = TenantOrder(self.tenants())

    def _put(self, tenant: TenantRecord) -> None:
        """Store a tenant and keep every index of it right.

        :raises Conflict: it cannot have this status after the one that it has; nothing changed.
        """
        old = self._tenants.get(tenant.id)
        check_tenant(tenant.name, None if old is None else old.status, tenant.status)
        if old is not None:
            self._forget_indexes(old)
            if old.node_id and old.node_id != tenant.node_id:
                self.touched.note(old.node_id, tenant.id)
        if tenant.node_id:
            self.touched.note(tenant.node_id, tenant.id)
        self._order.changed(old, tenant)
        self._store(tenant)

    def _store(self, tenant: TenantRecord) -> None:
        self._tenants[tenant.id] = tenant
        self._assignments.pop(tenant.id, None)
        self._by_status.setdefault(tenant.status, set()).add(tenant.id)
        if tenant.status not in (TenantStatus.DELETING, TenantStatus.DELETED):
            self._names[tenant.name] = tenant.id
            self._domains.update(dict.fromkeys(tenant.custom_domains, tenant.id))
        if tenant.node_id:
            self._tenants_of.setdefault(tenant.node_id, set()).add(tenant.id)
        if tenant.degraded and tenant.status is not TenantStatus.DELETED:
            self._degraded.add(tenant.id)
        self._note_end(tenant)

    def _note_end(self, tenant: TenantRecord) -> None:
        end = may_end(tenant)
        if end and tenant.node_id:
            self._ending.add(tenant.id)
        elif end == "purged":
            if tenant.purge_at is not None:
                heappush(self._purges, (tenant.purge_at, tenant.id))
        elif end:
            self._without_node[tenant.id] = None

    def _forget_indexes(self, tenant: TenantRecord) -> None:
        self._by_status[tenant.status].discard(tenant.id)
        if self._names.get(tenant.name) == tenant.id:
            del self._names[tenant.name]
        for domain in tenant.custom_domains:
            if self._domains.get(domain) == tenant.id:
                del self._domains[domain]
        self._tenants_of.get(tenant.node_id, set()).discard(tenant.id)
        self._ending.discard(tenant.id)
        self._without_node.pop(tenant.id, None)
        self._degraded.discard(tenant.id)

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

    def _owned(self, tenant_id: str, node_id: str, epoch: int) -> TenantRecord:
        tenant = self._living(tenant_id)
        if (tenant.node_id, tenant.epoch) != (node_id, epoch):
            raise WrongEpoch(
                f"tenant {tenant.name!r} belongs to {tenant.node_id!r} under epoch {tenant.epoch}"
            )
        return tenant

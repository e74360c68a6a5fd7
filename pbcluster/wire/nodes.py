"""What nodes and the control plane say to each other.

First what a node must own and what it tells of it, then what it asks, then what it is asked.
"""

from __future__ import annotations

from datetime import datetime

from pbcluster.records import (
    Durability,
    InitialSuperuser,
    NodeResources,
    OnOutage,
    Record,
    TenantLogs,
    TenantQuotas,
)
from pbcluster.wire.base import Message


class Assignment(Message, frozen=True):
    """One tenant that a node must own: all it needs to claim, restore and start it."""

    tenant_id: str
    epoch: int
    name: str
    hosts: tuple[str, ...]
    ever_ready: bool
    durability: Durability
    #: Start it now; else at its first request.
    wanted: bool
    quotas: TenantQuotas = TenantQuotas()
    initial_superuser: InitialSuperuser | None = None
    degraded: bool = False
    logs: TenantLogs = TenantLogs.ERRORS
    #: Not empty: this migration takes it away. Hold its requests, let open ones finish, stop it
    #: after a last sync and report ``drained``; serve it again if a later list leaves this empty.
    handing_over: str = ""
    #: Not 0: the owner of this epoch gave it up, and no earlier one can hold a proof; whoever
    #: replaces exactly its claim need not wait before it answers.
    released_epoch: int = 0
    #: Not to be served but ended under this epoch: ``archived``, ``deleted`` (claim that state,
    #: then remove the copy) or ``purged`` (remove a deleted tenant's objects from S3).
    ending: str = ""
    durable_reads: bool = False
    on_s3_outage: OnOutage = OnOutage.DEGRADE
    #: Report ``settled`` when everything is in S3; until then the stricter of the two counts.
    wanted_durability: Durability | None = None


class Warming(Message, frozen=True):
    """An order: restore a copy of a tenant without owning it, since migration ``migration_id`` will
    bring it here. Its owner has it under ``epoch``."""

    tenant_id: str
    migration_id: str
    epoch: int


class NodeAssignments(Message, frozen=True):
    """Everything a node owns, as of log index ``index``: it loads what is new, releases the rest.

    A list with a lower index than one already obeyed is refused. ``list_id`` is another for every
    list that is sent (0: it has none): :class:`AssignmentChanges` name by it what they change.
    """

    node_id: str
    incarnation: int
    index: int
    assignments: tuple[Assignment, ...]
    warming: tuple[Warming, ...] = ()
    list_id: int = 0


class AssignmentChanges(Message, frozen=True):
    """What makes any of the lists ``since`` the list ``list_id``, so that one tenant's change is
    not sent with hundreds of others. It means nothing to a node that obeyed another list: it
    refuses this and asks with a lease, whose answer brings the whole list.

    ``changed`` are new or have other details, ``warming`` are all orders of that kind.
    """

    node_id: str
    incarnation: int
    index: int
    since: tuple[int, ...]
    list_id: int
    changed: tuple[Assignment, ...] = ()
    removed: tuple[str, ...] = ()
    warming: tuple[Warming, ...] = ()


#: ``TenantUsage.state`` of a tenant that left the node, while requests for it still come there.
MOVED = "moved"


class TenantUsage(Record, frozen=True):
    """What a node reports of one tenant since its last heartbeat. ``db_bytes`` is what its database
    takes on the node's disk, write-ahead log included, ``file_bytes`` what its files take in S3."""

    tenant_id: str
    state: str
    epoch: int = 0
    request_count: int = 0
    last_access: datetime | None = None
    error: str = ""
    #: Bytes of data.db with its log, 0: no copy is here; of its files in S3.
    db_bytes: int = 0
    file_bytes: int = 0


# -- node → control plane --------------------------------------------------------------------------


class RegisterNode(Message, frozen=True):
    """/internal/node/register. ``start_id`` is random for each start: the same one gets the same
    incarnation again, a new one the next."""

    node_id: str
    start_id: str
    address: str
    capacity: int
    region: str = ""
    zone: str = ""
    software_version: str = ""


class Registered(Message, frozen=True):
    """The node's incarnation and all it owns."""

    incarnation: int
    assignments: NodeAssignments


class Heartbeat(Message, frozen=True):
    """/internal/node/heartbeat, every 5 s: soft state, never in the log."""

    node_id: str
    incarnation: int
    timestamp: datetime
    status: str
    max_tenants: int
    active_tenants: int
    cached_tenants: int
    resources: NodeResources
    tenants: tuple[TenantUsage, ...] = ()
    hits: int = 0
    misses: int = 0
    evictions: int = 0


class Lease(Message, frozen=True):
    """/internal/node/lease, every 0.4 s. The node ages the answer from when it sent this."""

    node_id: str
    incarnation: int
    assignments_index: int


class LeaseAck(Message, frozen=True):
    """Proof of ownership for all tenants of the list at ``assignments_index``, but for those
    ``not_covered``; no proof at all for a node that obeyed another index, or if not ``granted``.
    ``assignments`` comes along when the node's own index is behind. ``members_index`` is the log
    index at which the control plane's members changed last.
    """

    granted: bool
    assignments_index: int
    not_covered: tuple[str, ...] = ()
    assignments: NodeAssignments | None = None
    members_index: int = 0


class NodeCapacity(Message, frozen=True):
    """/internal/node/capacity: the bound changed, or the node begins or ends to drain."""

    node_id: str
    incarnation: int
    max_tenants: int
    draining: bool
    #: It is being stopped: its running tenants are to go elsewhere now. Told again and again.
    leaving: bool = False


class TenantReport(Message, frozen=True):
    """What became of an assignment: ``ready``, ``refused`` (claim lost, or a resume that may not be
    trusted: a new epoch above ``observed_epoch`` is needed), ``failed`` (with the reason),
    ``released`` (nothing of it runs here any more), ``stopped`` (idle; still ours) or ``ended``
    (what :attr:`Assignment.ending` ordered is done) or ``deleted`` (S3 has its tombstone: the
    registry forgot a deletion), ``settled`` (everything is in S3, so the durability named by
    ``detail`` may count) or ``restored`` (PocketBase put a backup in the database's place: it needs
    a new epoch, on this node).

    Of a migration: ``warmed`` (a copy of ``size_bytes`` at ``txid`` is here) or ``warm_failed``;
    ``drained`` (stopped, all of it in S3 up to ``txid``; ``settled``: no earlier owner can hold a
    proof) or ``not_drained``.
    """

    node_id: str
    incarnation: int
    tenant_id: str
    epoch: int
    outcome: str
    observed_epoch: int = 0
    detail: str = ""
    txid: int = 0
    migration_id: str = ""
    size_bytes: int = 0
    settled: bool = False


class SetDegraded(Message, frozen=True):
    """/internal/tenant/degraded: from the answer on, the tenant's owner may acknowledge writes that
    are on its disk only; or, with ``degraded`` false, everything is in S3 again.

    The answer comes after the commit: from then on only an operator gives the tenant away.
    """

    node_id: str
    incarnation: int
    tenant_id: str
    epoch: int
    degraded: bool


# -- control plane → node, unasked -----------------------------------------------------------------


class Probe(Message, frozen=True):
    """Are you there? The node answers :class:`Ok` by the same request id."""

    incarnation: int


class MintLogin(Message, frozen=True):
    """A token for a superuser of a tenant, valid for ``lifetime_s``. The node wakes the tenant if
    need be; an empty ``email`` means its first superuser. Answered by :class:`Login`."""

    tenant_id: str
    epoch: int
    email: str
    lifetime_s: int


class Login(Message, frozen=True):
    """The token, and whose it is. Never logged."""

    email: str
    superuser_id: str
    token: str

    def __repr__(self) -> str:
        return f"Login({self.email!r})"


class ReadLog(Message, frozen=True):
    """What a tenant's PocketBase printed after ``cursor`` (empty: the last ``most`` lines)."""

    tenant_id: str
    cursor: str
    most: int


class LogLines(Message, frozen=True):
    """Lines, the oldest first, without tokens and control characters. ``cursor`` asks for those
    after them; ``missed`` came in between and are not there any more."""

    cursor: str
    lines: tuple[str, ...]
    missed: int = 0


class FindTenant(Message, frozen=True):
    """Survey ``find:<tenant>``: does anything of it run on you? Asked of every node."""

    tenant_id: str


class TenantFound(Message, frozen=True):
    """A node's answer: the epoch under which it has the tenant (0: it has not), in which state,
    and the index of the list that it obeys."""

    node_id: str
    incarnation: int
    epoch: int
    state: str
    obeyed_index: int

"""The records of the control plane: what the platform knows of tenants, nodes and routes.

Frozen :class:`msgspec.Struct` values. The same value is stored (msgpack), sent between processes
(msgpack) and shown by the admin API (JSON); the JSON names are the seed's (``tenantID``,
``nodeAddr``). Fields are only ever appended, always with a default, so that an older process reads
what a newer one wrote. Nothing here checks ownership or changes anything: ``controlplane.registry``
does. The rules for names stand here because every part must agree on them.
"""

from __future__ import annotations

import enum
import re
from datetime import datetime
from typing import Any

import msgspec

from pbcluster.errors import InvalidInput

TENANT_ID_PREFIX = "tenant_"
NODE_ID_PREFIX = "node_"

#: One DNS label (RFC 1035 section 2.3.1, RFC 1123 section 2.1), lower case.
NAME_RULE = (
    "1 to 63 characters: lower-case letters a-z, digits and hyphens, "
    "beginning and ending with a letter or digit"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TENANT_ID = re.compile(r"tenant_[a-z0-9]{8,40}")
_PROCESS_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")

#: Tenants a node hosts at once (seed).
DEFAULT_CAPACITY = 200
MAX_METADATA_BYTES = 16 * 1024
MAX_DOMAINS = 32


def check_name(name: str, field: str = "name") -> str:
    """Give ``name`` back if it is a DNS label, else raise :class:`InvalidInput` with the rule."""
    if not isinstance(name, str) or not _LABEL.fullmatch(name) or name[2:4] == "--":
        raise InvalidInput(
            f"{field} {name!r} is not allowed: {NAME_RULE}", field=field, allowed=NAME_RULE
        )
    return name


def check_domain(domain: str, field: str = "domain") -> str:
    """Give a lower-case host name of at least two labels back, else raise :class:`InvalidInput`."""
    rule = "a lower-case host name of at most 253 characters, like shop.example.com, no IP address"
    labels = domain.split(".") if isinstance(domain, str) else []
    fine = len(labels) >= 2 and len(domain) <= 253 and not labels[-1].isdigit()
    if not fine or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidInput(f"{field} {domain!r} is not allowed: {rule}", field=field, allowed=rule)
    return domain


def is_tenant_id(text: str) -> bool:
    """Whether ``text`` has the form of a tenant id (a name never has: it holds no underscore)."""
    return _TENANT_ID.fullmatch(text) is not None


def check_process_id(text: str, field: str = "id") -> str:
    """Give a member's, node's or gateway's id back, else raise :class:`InvalidInput`."""
    rule = "1 to 63 characters: a lower-case letter, then letters, digits, hyphen, underscore"
    if not isinstance(text, str) or not _PROCESS_ID.fullmatch(text):
        raise InvalidInput(f"{field} {text!r} is not allowed: {rule}", field=field, allowed=rule)
    return text


def json_name(attribute: str) -> str:
    """``tenant_id`` → ``tenantID``, ``ever_ready`` → ``everReady``: the seed's spelling."""
    first, *rest = attribute.split("_")
    return first + "".join("ID" if word == "id" else word.capitalize() for word in rest)


class Record(
    msgspec.Struct, frozen=True, kw_only=True, rename=json_name, omit_defaults=False, gc=False
):
    """Base of all stored values.

    Values of values, they are never in a cycle: the garbage collector need not walk through the
    hundreds of thousands of them that a member keeps (100 ms each time).
    """


class TenantStatus(enum.Enum):
    """The seed's created, active, idle, archived, and the steps of an end: *archiving* and
    *deleting* until a node has carried them out."""

    CREATED = "created"
    ACTIVE = "active"
    IDLE = "idle"
    ARCHIVING = "archiving"
    ARCHIVED = "archived"
    DELETING = "deleting"
    DELETED = "deleted"


class Durability(enum.Enum):
    """When a write is acknowledged: after it is in S3, or at once."""

    SYNC = "sync"
    ASYNC = "async"


class TenantLogs(enum.Enum):
    """What a tenant's PocketBase logs into its own database (what it prints is another thing)."""

    OFF = "off"
    ERRORS = "errors"
    INFO = "info"


class OnOutage(enum.Enum):
    """What becomes of writes while S3 is away: acknowledged as ``local`` once that is committed, or
    refused."""

    DEGRADE = "degrade"
    REJECT = "reject"


class NodeStatus(enum.Enum):
    """How the control plane sees a node."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DRAINING = "draining"
    DOWN = "down"


class ProcessRole(enum.StrEnum):
    """What a process of the cluster is."""

    MEMBER = "member"
    NODE = "node"
    GATEWAY = "gateway"


class Role(enum.Enum):
    """What a token of the admin API allows: look; also work with tenants and nodes; everything."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class MigrationPhase(enum.Enum):
    """How far a tenant's move to another node is; the last two are ends."""

    PREPARING = "preparing"
    DRAINING = "draining"
    SWITCHING = "switching"
    DONE = "done"
    ABORTED = "aborted"


class TenantQuotas(Record, frozen=True):
    """Bounds of one tenant; 0 means the platform's default, never "unlimited"."""

    max_db_bytes: int = 0
    max_file_bytes: int = 0
    requests_per_second: float = 0.0
    burst: int = 0
    concurrent_requests: int = 0
    max_body_bytes: int = 0
    memory_bytes: int = 0
    cpu_share: float = 0.0
    #: Open at once; they count here and not among ``concurrent_requests``.
    event_streams: int = 0


class InitialSuperuser(Record, frozen=True):
    """The first login of a new tenant, kept only until the tenant was ready once.

    ``password_hash`` is a bcrypt hash: the password itself never leaves the admin API's request.
    """

    email: str
    password_hash: str


class TenantRecord(Record, frozen=True):
    """One tenant. ``version`` is the log index of its last change (optimistic concurrency)."""

    id: str
    name: str
    domain: str
    status: TenantStatus
    created: datetime
    updated: datetime
    custom_domains: tuple[str, ...] = ()
    node_id: str = ""
    epoch: int = 0
    ever_ready: bool = False
    version: int = 0
    quotas: TenantQuotas = TenantQuotas()
    metadata: dict[str, Any] = {}
    durability: Durability = Durability.SYNC
    degraded: bool = False
    pocketbase_version: str = ""
    bundle_version: str = ""
    placement: dict[str, str] = {}
    initial_superuser: InitialSuperuser | None = None
    last_error: str = ""
    logs: TenantLogs = TenantLogs.ERRORS
    #: When a deleted tenant's objects leave S3, and whether they did.
    purge_at: datetime | None = None
    purged: bool = False
    #: Reads and events wait, too, until what they may show is in S3.
    durable_reads: bool = False
    on_s3_outage: OnOutage = OnOutage.DEGRADE
    #: An operator's wish; ``durability`` follows once the owner has everything in S3.
    wanted_durability: Durability | None = None


class NodeResources(Record, frozen=True):
    """What a node reported last: CPU 0..1 of the machine, memory and disk in bytes."""

    cpu_usage: float = 0.0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    disk_used_bytes: int = 0
    disk_total_bytes: int = 0


class NodeRecord(Record, frozen=True):
    """One node. ``incarnation`` counts its starts; an older one's messages are refused.

    ``active_count``, ``last_heartbeat`` and ``resources`` are soft state of the leader, filled in
    when the record is shown; they never go through the log.
    """

    id: str
    address: str
    capacity: int = DEFAULT_CAPACITY
    status: NodeStatus = NodeStatus.HEALTHY
    incarnation: int = 0
    start_id: str = ""
    region: str = ""
    zone: str = ""
    software_version: str = ""
    version: int = 0
    assignments_index: int = 0
    active_count: int = 0
    last_heartbeat: datetime | None = None
    resources: NodeResources = NodeResources()
    #: An operator wants it empty; survives its restarts, unlike the status ``draining`` alone.
    drain_wanted: bool = False
    #: It was removed for good: it is never let in again. It is kept for what still names it.
    removed: bool = False


class MemberRecord(Record, frozen=True):
    """One member of the control plane: where it is reached, and by which key it is known.

    ``raft``, ``requests`` and ``broadcasts`` are ZeroMQ endpoints (``tcp://HOST:PORT``), ``admin``
    is the base URL of its admin API. ``curve_public`` is empty with plain sockets only.
    """

    id: str
    raft: str
    requests: str
    broadcasts: str
    admin: str
    curve_public: str = ""


class ProcessRecord(Record, frozen=True):
    """A node or a gateway that may speak to the members, and the key by which it is known.

    ``joined`` and ``token_id`` say when and by which join token it came; both are empty for a
    process of the first host, which the members' settings name.
    """

    id: str
    role: str
    curve_public: str = ""
    joined: datetime | None = None
    token_id: str = ""


class RouteRecord(Record, frozen=True):
    """Where the requests of a tenant go. Priority 1 is current, 0 the old one of a migration."""

    tenant_id: str
    node_id: str
    epoch: int
    priority: int = 1
    last_access: datetime | None = None


class RebalanceRecord(Record, frozen=True):
    """Nodes are evened out, ``at_once`` tenants at a time. ``total_moves``: what it seemed to need
    when it began. ``reason``: why it ended before the nodes were even."""

    id: str
    started: datetime
    total_moves: int
    at_once: int
    version: int
    ended: datetime | None = None
    reason: str = ""


class MigrationRecord(Record, frozen=True):
    """One tenant's move from ``source_node`` to ``target_node``; the last one of each tenant stays.

    ``source_epoch`` is the source's, ``target_epoch`` the target's (0 before the switch).
    ``warmed``: the target restored a copy of ``warm_bytes`` at transaction ``warm_txid``.
    ``gateways``: how many acknowledged the hold. ``settled``: no owner before the source can hold a
    proof any more. ``old_route``: the source's route (priority 0) is still kept. ``reason``: why it
    was aborted.
    """

    id: str
    tenant_id: str
    source_node: str
    target_node: str
    source_epoch: int
    phase: MigrationPhase
    started: datetime
    updated: datetime
    version: int
    target_epoch: int = 0
    warmed: bool = False
    warm_bytes: int = 0
    warm_txid: int = 0
    warmed_at: datetime | None = None
    gateways: int = 0
    draining_at: datetime | None = None
    final_txid: int = 0
    settled: bool = False
    switching_at: datetime | None = None
    ended: datetime | None = None
    old_route: bool = False
    reason: str = ""

"""The messages between processes: one envelope on every socket, validated before use.

A frame is ``MAGIC`` (4 bytes: ``PBC`` and the protocol version) followed by the msgpack of an
:class:`Envelope`. :func:`decode` refuses a frame by its size before it looks inside, then by its
magic, then by its types. Every message is a tagged array-like struct: fields are only appended,
with defaults, so that old and new processes read each other.

This module knows no socket and no clock. A deadline travels as the milliseconds that are left,
since clocks of two machines disagree; the receiver counts from the moment of arrival.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from pbcluster.errors import PBClusterError, RemoteProtocolError, from_code
from pbcluster.records import (
    Durability,
    InitialSuperuser,
    MemberRecord,
    NodeResources,
    OnOutage,
    Record,
    TenantLogs,
    TenantQuotas,
)

MAGIC = b"PBC\x01"
#: A list of 1,000 routes or 200 assignments is below 512 KiB; anything larger is junk.
MAX_FRAME_BYTES = 1024 * 1024
#: Tenants named in one SnapshotRequest.
MAX_SNAPSHOT_TENANTS = 1000


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all bodies; the tag is the class's name."""


# -- pieces ---------------------------------------------------------------------------------------


class Route(Message, frozen=True):
    """The way to a tenant. ``address`` is the node's base URL; ``hosts`` all the tenant's names."""

    tenant_id: str
    name: str
    node_id: str
    address: str
    incarnation: int
    epoch: int
    hosts: tuple[str, ...] = ()
    max_body_bytes: int = 0
    priority: int = 1


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

    The whole list, not a change, so that a lost message is repaired by the next one. A list with a
    lower index than one already obeyed is refused.
    """

    node_id: str
    incarnation: int
    index: int
    assignments: tuple[Assignment, ...]
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


# -- node → control plane -------------------------------------------------------------------------


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


# -- gateway → control plane ----------------------------------------------------------------------


class LookupRoute(Message, frozen=True):
    """/internal/tenant/route (``place`` false) and /internal/tenant/assign (``place`` true: give it
    a living node now if it has none). Exactly one of the three keys is not empty."""

    tenant_id: str = ""
    name: str = ""
    domain: str = ""
    min_epoch: int = 0
    place: bool = False


class RouteFound(Message, frozen=True):
    """The route, as of log index ``index``."""

    index: int
    route: Route


class SuspectNode(Message, frozen=True):
    """/internal/node/suspect: a gateway cannot reach a node. A hint, never a verdict."""

    node_id: str
    incarnation: int
    reason: str


class SnapshotRequest(Message, frozen=True):
    """/internal/snapshot: today's routes of the named tenants, after a gap in the broadcasts."""

    tenant_ids: tuple[str, ...]


class Snapshot(Message, frozen=True):
    """Routes as of ``index``; tenants asked for that are not among them have none."""

    index: int
    routes: tuple[Route, ...]


class ListMembers(Message, frozen=True):
    """/internal/members: who the control plane's members are now; any member answers."""


class Members(Message, frozen=True):
    """The members of the control plane that vote, as of log index ``index``; none: not all of them
    are known yet. ``gateways`` and ``former_gateways``: ids of those whose requests nodes take, and
    of those that were removed."""

    index: int
    members: tuple[MemberRecord, ...]
    gateways: tuple[str, ...] = ()
    former_gateways: tuple[str, ...] = ()


class ListTokenKeys(Message, frozen=True):
    """/internal/keys: by which keys platform tokens are verified. Any member answers, or, with
    ``newest``, the leader only: a token's key is known to it at once."""

    newest: bool = False


class TokenKey(Message, frozen=True):
    """The public half of a key that signs, or signed, platform tokens.

    ``public`` is a raw Ed25519 key (32 bytes). After ``until`` (Unix seconds) none of its tokens is
    valid any more; 0: it signs now.
    """

    kid: str
    public: bytes
    until: int = 0


class TokenKeys(Message, frozen=True):
    """All keys that verify, as of log index ``index``: what is not among them verifies nothing."""

    index: int
    keys: tuple[TokenKey, ...]


# -- control plane → node, unasked ----------------------------------------------------------------


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


# -- control plane → gateway, unasked -------------------------------------------------------------


class HoldTenant(Message, frozen=True):
    """Hold requests for a tenant until a route of a higher epoch than ``epoch`` is known, the same
    route is confirmed, or ``limit_ms`` have passed. Answered :class:`Ok` once it is held."""

    tenant_id: str
    epoch: int
    limit_ms: int


# -- broadcasts -----------------------------------------------------------------------------------


class Broadcast(Message, frozen=True):
    """One numbered event. ``previous`` is the index of the broadcast before it: a subscriber that
    did not see that one has a gap. A beacon repeats the last with topic ``beacon``."""

    topic: str
    index: int
    previous: int
    tenant_id: str = ""
    node_id: str = ""
    incarnation: int = 0
    route: Route | None = None


TOPICS = (
    "tenant.migrating",
    "tenant.moved",
    "tenant.updated",
    "tenant.deleted",
    "node.up",
    "node.draining",
    "node.down",
    "members.changed",
    "keys.changed",
)
BEACON = "beacon"

# -- answers --------------------------------------------------------------------------------------


class Ok(Message, frozen=True):
    """Done; nothing to tell."""


class ErrorReply(Message, frozen=True):
    """An error of ``pbcluster.errors`` on its way to the other side."""

    code: str
    message: str
    data: dict[str, Any] = {}

    @classmethod
    def of(cls, error: BaseException) -> ErrorReply:
        """Wrap ``error``; one that is not ours becomes ``internal`` and shows no detail."""
        if isinstance(error, PBClusterError):
            return cls(error.code, error.message, error.data)
        return cls("internal", f"internal error ({type(error).__name__})")

    def exception(self) -> PBClusterError:
        """The error to raise at the asking side."""
        return from_code(self.code, self.message, self.data)


Body = (
    RegisterNode
    | Registered
    | Heartbeat
    | Lease
    | LeaseAck
    | NodeCapacity
    | NodeAssignments
    | TenantReport
    | SetDegraded
    | LookupRoute
    | RouteFound
    | SuspectNode
    | SnapshotRequest
    | Snapshot
    | ListMembers
    | Members
    | ListTokenKeys
    | TokenKeys
    | Probe
    | MintLogin
    | Login
    | ReadLog
    | LogLines
    | Broadcast
    | Ok
    | ErrorReply
    | FindTenant
    | TenantFound
    | HoldTenant
)

#: Only these change the replicated state: they must carry an idempotency key.
STATE_CHANGING = (RegisterNode, NodeCapacity, TenantReport, SetDegraded)


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What surrounds every body.

    ``request_id`` pairs a question with its answer (0: none expected). ``timeout_ms`` is what is
    left of the asker's deadline. ``idempotency_key`` lets a repeated change run once.
    """

    cluster_id: str
    sender: str
    request_id: int
    timeout_ms: int
    idempotency_key: str
    body: Body


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)
M = TypeVar("M", bound=Message)


def encode(envelope: Envelope) -> bytes:
    """The frame of ``envelope``."""
    return MAGIC + _encoder.encode(envelope)


def decode(frame: bytes, *, max_bytes: int = MAX_FRAME_BYTES) -> Envelope:
    """Read a frame from outside.

    :raises RemoteProtocolError: too large, wrong magic or version, or not an envelope.
    """
    if len(frame) > max_bytes:
        raise RemoteProtocolError(f"frame of {len(frame)} bytes, {max_bytes} are allowed")
    if frame[:4] != MAGIC:
        raise RemoteProtocolError("frame does not begin with this protocol's magic and version")
    try:
        return _decoder.decode(frame[4:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"frame is no envelope: {error}") from None


def expect(body: Body, kind: type[M]) -> M:
    """``body`` if it is a ``kind``; the error it carries is raised instead.

    :raises PBClusterError: what the other side answered.
    :raises RemoteProtocolError: another kind of message.
    """
    if isinstance(body, ErrorReply):
        raise body.exception()
    if not isinstance(body, kind):
        raise RemoteProtocolError(f"expected {kind.__name__}, got {type(body).__name__}")
    return body

"""The messages between processes: one envelope on every socket, validated before use.

A frame is ``MAGIC`` (4 bytes: ``PBC`` and the protocol version) followed by the msgpack of an
:class:`Envelope`. :func:`decode` refuses a frame by its size before it looks inside, then by its
magic, then by its types. Every message is a tagged array-like struct: fields are only appended,
with defaults, so that old and new processes read each other.

The kinds of bodies stand in ``nodes`` and ``routes``; whoever uses them imports them from here.

This package knows no socket and no clock. A deadline travels as the milliseconds that are left,
since clocks of two machines disagree; the receiver counts from the moment of arrival.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from pbcluster.errors import RemoteProtocolError
from pbcluster.wire.base import (
    ErrorReply,
    Message,
    Ok,
)
from pbcluster.wire.nodes import (
    MOVED,
    Assignment,
    AssignmentChanges,
    FindTenant,
    Heartbeat,
    Lease,
    LeaseAck,
    Login,
    LogLines,
    MintLogin,
    NodeAssignments,
    NodeCapacity,
    Probe,
    ReadLog,
    Registered,
    RegisterNode,
    SetDegraded,
    TenantFound,
    TenantReport,
    TenantUsage,
    Warming,
)
from pbcluster.wire.routes import (
    BEACON,
    MAX_SNAPSHOT_TENANTS,
    TOPICS,
    Broadcast,
    HoldTenant,
    ListMembers,
    ListTokenKeys,
    LookupRoute,
    Members,
    Route,
    RouteFound,
    Snapshot,
    SnapshotRequest,
    SuspectNode,
    TokenKey,
    TokenKeys,
)

__all__ = [
    "BEACON",
    "MAGIC",
    "MAX_FRAME_BYTES",
    "MAX_SNAPSHOT_TENANTS",
    "MOVED",
    "STATE_CHANGING",
    "TOPICS",
    "Assignment",
    "AssignmentChanges",
    "Body",
    "Broadcast",
    "Envelope",
    "ErrorReply",
    "FindTenant",
    "Heartbeat",
    "HoldTenant",
    "Lease",
    "LeaseAck",
    "ListMembers",
    "ListTokenKeys",
    "LogLines",
    "Login",
    "LookupRoute",
    "Members",
    "Message",
    "MintLogin",
    "NodeAssignments",
    "NodeCapacity",
    "Ok",
    "Probe",
    "ReadLog",
    "RegisterNode",
    "Registered",
    "Route",
    "RouteFound",
    "SetDegraded",
    "Snapshot",
    "SnapshotRequest",
    "SuspectNode",
    "TenantFound",
    "TenantReport",
    "TenantUsage",
    "TokenKey",
    "TokenKeys",
    "Warming",
    "decode",
    "encode",
    "expect",
]

MAGIC = b"PBC\x01"
#: A list of 1,000 routes or 200 assignments is below 512 KiB; anything larger is junk.
MAX_FRAME_BYTES = 1024 * 1024

Body = (
    RegisterNode
    | Registered
    | Heartbeat
    | Lease
    | LeaseAck
    | NodeCapacity
    | NodeAssignments
    | AssignmentChanges
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

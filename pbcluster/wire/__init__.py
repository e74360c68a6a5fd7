"""The messages between processes: one envelope on every socket, validated before use.

A frame is ``MAGIC`` (4 bytes: ``PBC`` and the protocol version) followed by the msgpack of an
:class:`Envelope`. :func:`decode` refuses a frame by its size before it looks inside, then by its
magic, then by its types. Every message is a tagged array-like struct: fields are only appended,
with defaults, so that old and new processes read each other.

A *bundle* is one frame for several envelopes of one sender (:func:`bundle`): ``PBB`` and the
version, then the msgpack of a list of them. It is sent only to those who said that they read it
(``Envelope.bundles``); what a frame costs by itself (a system call, a thread that wakes, a box of
CURVE) is then paid once.

The kinds of bodies stand in ``nodes`` and ``routes``; whoever uses them imports them from here.

This package knows no socket and no clock. A deadline travels as the milliseconds that are left,
since clocks of two machines disagree; the receiver counts from the moment of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, TypeVar

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
    "BUNDLE_MAGIC",
    "MAGIC",
    "MAX_BUNDLED",
    "MAX_BUNDLED_BYTES",
    "MAX_BUNDLE_BYTES",
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
    "bundle",
    "decode",
    "decode_bundle",
    "encode",
    "expect",
]

MAGIC = b"PBC\x01"
#: A list of 1,000 routes or 200 assignments is below 512 KiB; anything larger is junk.
MAX_FRAME_BYTES = 1024 * 1024
BUNDLE_MAGIC = b"PBB\x01"
#: Envelopes in a bundle, and bytes of a frame that is put into one: what is larger goes alone.
MAX_BUNDLED = 64
MAX_BUNDLED_BYTES = 4096
MAX_BUNDLE_BYTES = MAX_BUNDLED * MAX_BUNDLED_BYTES

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
    left of the asker's deadline. ``idempotency_key`` lets a repeated change run once. ``bundles``:
    the sender reads bundles.
    """

    cluster_id: str
    sender: str
    request_id: int
    timeout_ms: int
    idempotency_key: str
    body: Body
    bundles: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)
_length = msgspec.Meta(min_length=1, max_length=MAX_BUNDLED)
_bundle_decoder = msgspec.msgpack.Decoder(Annotated[list[Envelope], _length])
_parts_decoder = msgspec.msgpack.Decoder(Annotated[list[msgspec.Raw], _length])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
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
    except _UNREADABLE as error:
        raise RemoteProtocolError(f"frame is no envelope: {error}") from None


def bundle(frames: Sequence[bytes]) -> bytes:
    """One frame for several, of at most ``MAX_BUNDLED`` and ``MAX_BUNDLED_BYTES`` each.

    :param frames: of one sender; a single one stays what it is.
    """
    if len(frames) == 1:
        return frames[0]
    # msgpack's "array 16": a list is its length and then its items.
    head = BUNDLE_MAGIC + b"\xdc" + len(frames).to_bytes(2, "big")
    return head + b"".join([frame[4:] for frame in frames])


def decode_bundle(frame: bytes) -> Sequence[Envelope | None]:
    """Read a bundle from outside.

    :returns: None in the place of what is no envelope, as one of a kind that a newer process knows.
    :raises RemoteProtocolError: too large, wrong magic or version, not a list of its length.
    """
    if len(frame) > MAX_BUNDLE_BYTES:
        raise RemoteProtocolError(f"bundle of {len(frame)} bytes, {MAX_BUNDLE_BYTES} are allowed")
    if frame[:4] != BUNDLE_MAGIC:
        raise RemoteProtocolError("frame does not begin with a bundle's magic and version")
    packed = frame[4:]
    with suppress(*_UNREADABLE):
        whole: list[Envelope] = _bundle_decoder.decode(packed)
        return whole
    try:
        parts = _parts_decoder.decode(packed)
    except _UNREADABLE as error:
        raise RemoteProtocolError(f"frame is no bundle: {error}") from None
    return [_envelope_or_none(part) for part in parts]


def _envelope_or_none(packed: msgspec.Raw) -> Envelope | None:
    try:
        return _decoder.decode(packed)
    except _UNREADABLE:
        return None


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

"""Raft messages as bytes, and the guard that decides which are listened to.

A frame is ``MAGIC`` and the msgpack of a :class:`Frame`. :func:`decode` refuses by size, magic and
types, :func:`check` by what types cannot say. A :class:`Guard` then drops, and counts by reason,
what comes from another cluster, is meant for another member, claims another sender than the
transport authenticated, or was sent by an earlier start of its sender.
Nothing in here raises anything but :class:`~pbcluster.errors.RemoteProtocolError` for bad input.
"""

from __future__ import annotations

import msgspec

from pbcluster.errors import RemoteProtocolError
from pbcluster.raft.messages import (
    AnyMessage,
    Append,
    Count,
    EntryKind,
    MemberId,
    SnapshotChunk,
    VoteReply,
    decode_change,
)

MAGIC = b"PBR\x01"
#: An append (256 KiB of entries, or one command of 512 KiB) or a chunk, with what surrounds it.
MAX_FRAME_BYTES = 1024 * 1024
#: Senders whose incarnation is remembered: all members a group ever has between two restarts.
MAX_SENDERS = 256


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """A message and where it belongs."""

    cluster_id: str
    incarnation: Count
    message: AnyMessage


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """The bytes of ``frame``."""
    return MAGIC + _encoder.encode(frame)


def decode(data: bytes, *, max_bytes: int = MAX_FRAME_BYTES) -> Frame:
    """Read bytes from outside.

    :raises RemoteProtocolError: too large, another protocol or version, or not a sound message.
    """
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"frame of {len(data)} bytes, {max_bytes} are allowed")
    if data[:4] != MAGIC:
        raise RemoteProtocolError("frame does not begin with this protocol's magic and version")
    try:
        frame = _decoder.decode(memoryview(data)[4:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"frame is no Raft message: {error}") from None
    check(frame.message)
    return frame


def check(message: AnyMessage) -> None:
    """Refuse what no correct member sends.

    :raises RemoteProtocolError: naming what is wrong.
    """
    # Only a member that never heard of any term refuses a vote under term 0.
    lowest = 0 if isinstance(message, VoteReply) else 1
    if not message.sender or not message.to or message.term < lowest:
        raise RemoteProtocolError("message without sender, recipient or term")
    if isinstance(message, Append):
        _check_append(message)
    elif isinstance(message, SnapshotChunk):
        meta = message.meta
        beyond = message.offset + len(message.data) > meta.size_bytes
        if beyond or not meta.index or not meta.term or not meta.conf.voters:
            raise RemoteProtocolError("snapshot chunk does not fit its snapshot")


def _check_append(message: Append) -> None:
    index, term = message.prev_index, message.prev_term
    for entry in message.entries:
        index += 1
        if entry.index != index or not term <= entry.term <= message.term or entry.term < 1:
            raise RemoteProtocolError(f"entry {entry.index} of term {entry.term} is out of order")
        term = entry.term
        if entry.kind is EntryKind.CONFIG:
            try:
                decode_change(entry.data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RemoteProtocolError(f"entry {entry.index} is no change: {error}") from None


class Guard:
    """The door of one member."""

    def __init__(self, cluster_id: str, member: MemberId) -> None:
        self._cluster_id = cluster_id
        self._member = member
        self._incarnations: dict[MemberId, int] = {}
        #: Dropped frames by reason.
        self.dropped: dict[str, int] = {}

    def admit(self, data: bytes, authenticated: MemberId) -> AnyMessage | None:
        """The message in ``data`` if it may be stepped, else None, and its reason is counted.

        :param authenticated: who the transport knows to have sent it.
        """
        message, refused = self._examine(data, authenticated)
        if refused:
            self.dropped[refused] = self.dropped.get(refused, 0) + 1
        return message

    def _examine(self, data: bytes, authenticated: MemberId) -> tuple[AnyMessage | None, str]:
        """The message, or why there is none."""
        try:
            frame = decode(data)
        except RemoteProtocolError:
            return None, "junk"
        message = frame.message
        known = self._incarnations.get(message.sender, 0)
        refused = ""
        if frame.cluster_id != self._cluster_id:
            refused = "wrong_cluster"
        elif message.sender != authenticated:
            refused = "wrong_sender"
        elif message.to != self._member:
            refused = "wrong_recipient"
        elif frame.incarnation < known:
            refused = "stale_incarnation"
        if refused:
            return None, refused
        if known or len(self._incarnations) < MAX_SENDERS:
            self._incarnations[message.sender] = frame.incarnation
        return message, ""

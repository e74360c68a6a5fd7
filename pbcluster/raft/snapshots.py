"""Snapshots in pieces: the leader's side and the follower's.

The core never touches the bytes. A leader asks its driver to read and send one chunk at a time
(:class:`~pbcluster.raft.ready.ChunkToSend`); the follower's driver puts chunks into a staging file
(:class:`~pbcluster.raft.ready.ChunkReceived`), checks the whole and says ``install`` or ``refuse``.
Chunks are acknowledged for flow control only; staging is lost in a crash and begins anew. What is
staged is bound to the snapshot's metadata with its checksum, so that a transfer may go on under
another leader that has the very same snapshot, and under no other.
"""

from __future__ import annotations

from pbcluster.raft import elections, following
from pbcluster.raft.messages import (
    NOBODY,
    MemberId,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
)
from pbcluster.raft.progress import Progress, ProgressState
from pbcluster.raft.ready import ChunkReceived, ChunkToSend, Role
from pbcluster.raft.state import Raft, Staging

# -- the leader's side ----------------------------------------------------------------------------


def begin(raft: Raft, member: MemberId, progress: Progress) -> None:
    """Start sending the latest snapshot, but not to a member that seems dead."""
    if not progress.recent_active:
        return
    progress.become_snapshot(raft.log.snapshot)
    _send_chunk(raft, member, progress, raft.log.snapshot)


def _send_chunk(raft: Raft, member: MemberId, progress: Progress, meta: SnapshotMeta) -> None:
    """Send the chunk at ``next_offset``."""
    progress.chunk_wait_ticks = 0
    length = min(raft.options.snapshot_chunk_bytes, meta.size_bytes - progress.next_offset)
    raft.outbox.chunks_to_send.append(
        ChunkToSend(member, raft.id, raft.term, meta, progress.next_offset, length)
    )


def handle_reply(raft: Raft, message: SnapshotReply) -> None:
    """A chunk arrived, or the follower wants another one."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is None:
        return
    progress.hear()
    meta = progress.pending
    if meta is None or meta.index != message.index or message.next_offset > meta.size_bytes:
        return
    if message.next_offset == progress.next_offset:
        return
    progress.next_offset = message.next_offset
    if message.next_offset < meta.size_bytes:
        _send_chunk(raft, message.sender, progress, meta)
    else:
        # All there: now it is checked and installed, which the reply to an append tells.
        progress.chunk_wait_ticks = 0


def tick(raft: Raft) -> None:
    """Chunks and their answers get lost: after an election timeout send the chunk again, or, if all
    had arrived, ask by an append whether the snapshot was installed."""
    for member, progress in raft.tracker.progress.items():
        meta = progress.pending
        if meta is None:
            continue
        progress.chunk_wait_ticks += 1
        if progress.chunk_wait_ticks < raft.options.election_ticks:
            continue
        if progress.next_offset < meta.size_bytes and progress.recent_active:
            _send_chunk(raft, member, progress, meta)
        else:
            progress.become_probe()


def in_use(raft: Raft) -> tuple[SnapshotMeta, ...]:
    """The latest snapshot and all that are being sent."""
    return (raft.log.snapshot, *(meta for meta in _being_sent(raft) if meta != raft.log.snapshot))


def _being_sent(raft: Raft) -> list[SnapshotMeta]:
    return [one.pending for one in raft.tracker.progress.values() if one.pending is not None]


def compact(raft: Raft, meta: SnapshotMeta, index: int) -> int:
    """Forget the log up to ``index``, but keep what follows a snapshot on its way. A receiver that
    died does not hold the log for ever: :func:`tick` gives it up after an election timeout.

    :returns: the last index that is forgotten.
    """
    upto = min([index, *(one.index for one in _being_sent(raft))])
    raft.log.compact(meta, upto)
    return raft.log.compacted_index


def failed(raft: Raft, member: MemberId) -> None:
    """The driver could not read or send the snapshot: probe, and so begin again in time."""
    progress = raft.tracker.progress.get(member)
    if progress is not None and progress.state is ProgressState.SNAPSHOT:
        progress.become_probe()
        # The next answer to a heartbeat, not this moment, is the time to try again.
        progress.paused = True


# -- the follower's side --------------------------------------------------------------------------


def handle_chunk(raft: Raft, message: SnapshotChunk) -> None:
    """Stage a chunk if it is the next one, and say which is wanted."""
    meta = message.meta
    if meta.index <= raft.log.commit:
        following.acknowledge(raft, message.sender, raft.log.commit)
        return
    if raft.staging is None or raft.staging.meta != meta:
        raft.staging = Staging(meta)
    staging = raft.staging
    end = message.offset + len(message.data)
    fits = message.offset == staging.next_offset and end <= meta.size_bytes
    if fits and not staging.complete:
        staging.next_offset = end
        staging.complete = end == meta.size_bytes
        raft.outbox.chunks_received.append(
            ChunkReceived(meta, message.offset, message.data, staging.complete)
        )
    reply = SnapshotReply(raft.id, message.sender, raft.term, meta.index, staging.next_offset)
    raft.send(reply)


def install(raft: Raft, meta: SnapshotMeta) -> bool:
    """The driver has all of ``meta`` and it is sound: make it this member's state.

    :returns: whether it is to be installed; False if the log caught up meanwhile.
    """
    raft.staging = None
    if raft.is_leader() or meta.index <= raft.log.commit:
        return False
    if raft.log.term(meta.index) == meta.term:
        # The log holds all of it: nothing to install, and the tail after it stays.
        raft.log.commit_to(meta.index)
        _tell_leader(raft)
        return False
    if raft.role is not Role.FOLLOWER:
        # A candidacy stood for the log that goes away here.
        elections.become_follower(raft, raft.term, NOBODY)
    raft.log.restore(meta)
    raft.tracker.switch(meta.conf, raft.log.last_index + 1)
    _tell_leader(raft)
    return True


def _tell_leader(raft: Raft) -> None:
    if raft.leader:
        following.acknowledge(raft, raft.leader, raft.log.commit)


def refuse(raft: Raft, meta: SnapshotMeta) -> None:
    """What was staged of ``meta`` is not sound: begin anew at the next chunk."""
    if raft.staging is not None and raft.staging.meta == meta:
        raft.staging = None

"""Raft without I/O: the core of a replicated log, to be driven by something that has a disk.

Semantics follow Ongaro's paper and thesis and etcd-io/raft; the differences are named below. The
core knows ticks, messages and entries. It never waits, never looks at a clock, and all it wants
done comes out of ``RaftCore.ready()`` as one frozen :class:`Ready`.

The contract with the driver
============================

Start
-----
1. Read the disk: hard state, latest snapshot, all entries after it, the state machine's applied
   index and the membership as of it. Raise the stored incarnation and make it durable. Give all
   of it to :class:`RaftCore`. The first members of a group begin with ``StoredState.first``, equal
   on all of them; one that joins later begins with nothing. A member whose disk is lost, or fails
   its checksums, never starts under its old id: it joins anew, under a new one.
2. Drive the core from one thread. After any batch of inputs, while ``has_ready()``: take
   ``ready()`` and do, for each in the order in which they were taken, the duties below. Several may
   be under way: the next need not wait until the one before is durable or applied.

For each Ready
--------------
3. **Send** ``messages`` at once, in order; they promise nothing that is not yet durable. For each
   of ``chunks_to_send`` read the bytes and send ``chunk.message(data)``; where that fails call
   ``snapshot_failed``. Messages may be lost, doubled and reordered, never altered. To a member that
   cannot be reached, drop them and call ``report_unreachable``.
4. **Persist**, in one transaction: install ``snapshot`` (state machine and membership become the
   staged snapshot's, the whole log goes), then write ``entries`` (everything at or after the first
   of them goes before), then ``hard_state``. Entries and hard state of one Ready must become
   durable together. Transactions happen in order; those of several Readys may be joined into one.
   If nothing is written and nothing earlier is still being written, persisting is done at once.
5. **When it is durable** (an fsync returned; its error ends the process): send ``after``, in order,
   and give ``token`` to ``persisted()``. Never earlier: an acknowledgement or a vote that a crash
   forgets breaks the group. Where ``must_sync`` is false nothing but a commit index is to be
   written: that may wait for the next write, and this Ready counts as durable as soon as all before
   it are.
6. **Apply** ``committed`` in order and tell ``applied()``. Membership changes among them are in
   force in the core already; store ``conf`` together with the applied index, never one without
   the other. An entry proposed here is done when the entry applied at its index has its term, and
   lost when it has another. Reply after applying.
7. **Reads**: a context in ``reads`` may be answered when its index is applied; one in
   ``cancelled_reads`` never: the caller may begin a new read. Each read ends in one of the two.
   A leader that must prove that it leads (to renew a lease, say) begins a read and waits for it:
   its round began after the call.
8. **Chunks**: put each of ``chunks_received`` in its place of a staging file; after the last, check
   size and checksum of the whole (off the loop if it is large) and call ``install_snapshot`` or
   ``refuse_snapshot``. Staging files are removed at start.
9. **Answer callers** when ``role`` or ``leader`` changed: what waits for leadership waits in vain.

Meanwhile
---------
10. Call ``tick()`` at a steady pace, or sleep for ``quiet_ticks()`` of them, asked again after any
    other input, and call ``tick_gap(ticks)`` for as many as passed. Before stepping messages
    and before any question compare the clock and do so too: from an election timeout on, a leader
    steps down and its reads are cancelled.
    Where commits wait for entries to go out with (``commit_waits``), give what ``untold_commit()``
    says to ``tell_commit()`` some milliseconds later.
    Where the system tells that a connection ended, call ``connection_lost``: an election need not
    wait for its timeout then. It is a hint; nothing rests on it.
11. Step only messages that a :class:`~pbcluster.raft.frames.Guard` admitted.
12. From time to time make a snapshot of applied state with the membership as of it, make it
    durable, then call ``compact(meta, index)``, leaving some entries for members that lag little,
    and forget stored entries up to what it returns. Keep the bytes of ``snapshots_in_use()``.
13. An :class:`~pbcluster.raft.log.InvariantViolated` out of any call ends the process.

What callers see: ``Busy`` when bounds on uncommitted bytes or pending reads are reached,
``NotLeader`` with who is, ``Unavailable`` during a transfer or before a new leader's first commit,
``Conflict`` for a membership change that may not be made now.

Deliberate differences from etcd-io/raft
========================================
* Requests for real votes wait for durability like votes do (``elections`` says why).
* Membership changes are put in force by the core when it hands the entry out, without the driver.
* A learner is promoted only when it caught up; a voter cannot be added directly.
* Proposals and transfers are not forwarded: callers follow ``NotLeader``. Reads are.
* Reads share numbered rounds and never an older round; appends go out once a Ready, not a proposal.
* Snapshots travel in chunks, whose bytes the core never sees.
* A leader whose own write is not durable for three election timeouts steps down.
* No leases for reads, no change of the election rules by options: pre-vote and check-quorum are on.
"""

from pbcluster.raft.core import RaftCore
from pbcluster.raft.log import InvariantViolated
from pbcluster.raft.messages import (
    NOBODY,
    AnyMessage,
    ConfigAction,
    ConfigChange,
    ConfigStep,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    MemberId,
    SnapshotMeta,
    decode_change,
)
from pbcluster.raft.options import RaftOptions
from pbcluster.raft.ready import (
    ChunkReceived,
    ChunkToSend,
    PersistToken,
    Proposed,
    ReadState,
    Ready,
    Role,
    Status,
    StoredState,
)

__all__ = [
    "NOBODY",
    "AnyMessage",
    "ChunkReceived",
    "ChunkToSend",
    "ConfState",
    "ConfigAction",
    "ConfigChange",
    "ConfigStep",
    "Entry",
    "EntryKind",
    "HardState",
    "InvariantViolated",
    "MemberId",
    "PersistToken",
    "Proposed",
    "RaftCore",
    "RaftOptions",
    "ReadState",
    "Ready",
    "Role",
    "SnapshotMeta",
    "Status",
    "StoredState",
    "decode_change",
]

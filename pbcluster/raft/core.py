"""One member of a Raft group, without I/O: inputs are methods, effects come out of :meth:`ready`.

The contract with the driver is in :mod:`pbcluster.raft`. A plain class: terms are compared here,
everything else is dispatched to the module of its page. No method blocks, none looks at a clock.
An :class:`~pbcluster.raft.log.InvariantViolated` out of any of them means that this member's state
cannot be trusted: the process must end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pbcluster.errors import Busy, NotLeader, TooLarge, Unavailable
from pbcluster.raft import (
    elections,
    following,
    membership,
    quiet,
    reads,
    replication,
    snapshots,
    transfer,
)
from pbcluster.raft.log import InvariantViolated
from pbcluster.raft.messages import (
    NOBODY,
    AnyMessage,
    Append,
    AppendReply,
    ConfigChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    MemberId,
    ReadReply,
    ReadRequest,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from pbcluster.raft.options import RaftOptions
from pbcluster.raft.ready import PersistToken, Proposed, Ready, Role, Status, StoredState
from pbcluster.raft.state import Outbox, Raft, RandomSource

#: Only a leader of the message's term sends these.
FROM_LEADER = (Append, Heartbeat, SnapshotChunk)
#: Only members of the membership in force are listened to when they send these.
ANSWERS = (VoteReply, AppendReply, HeartbeatReply, SnapshotReply, ReadReply)


class RaftCore:
    """See the module."""

    def __init__(self, options: RaftOptions, stored: StoredState, random: RandomSource) -> None:
        """
        :param stored: what is on the disk; a follower comes of it.
        :param random: seeded; used for election timeouts alone.
        :raises InvariantViolated: the stored pieces do not fit together.
        """
        self._raft = Raft(options, stored, random)
        elections.draw_election_timeout(self._raft)
        self._last_hard = stored.hard
        self._tokens = 0
        self._last_shown = (Role.FOLLOWER, stored.hard.term, NOBODY)

    # -- time -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick passed."""
        raft = self._raft
        raft.now += 1
        if raft.unsynced_token:
            raft.disk_wait_ticks += 1
        reads.expire(raft)
        if not raft.is_leader():
            elections.tick(raft)
            return
        elections.tick_leader(raft)
        if not raft.is_leader():
            return
        snapshots.tick(raft)
        raft.heartbeat_elapsed += 1
        if raft.heartbeat_elapsed >= raft.options.heartbeat_ticks:
            membership.leave_joint_if_due(raft)
            replication.broadcast_heartbeat(raft)
            # A leader that is the only voter is a quorum already, and gets no answer.
            reads.release(raft)

    def tick_gap(self, ticks: int) -> None:
        """So many ticks passed at once: the driver slept (:meth:`quiet_ticks`), or the process was
        stopped, or its machine. To be called before any message that waited meanwhile is stepped.

        :param ticks: at least 1. From an election timeout on a leader steps down.
        """
        if ticks >= self._raft.options.election_ticks:
            elections.skip(self._raft, ticks)
            return
        for _ in range(ticks):
            self.tick()

    def quiet_ticks(self) -> int:
        """So many ticks from now, at least 1, is the next that may do something; see
        :mod:`pbcluster.raft.quiet`. Any other input may make it sooner."""
        return quiet.quiet_ticks(self._raft)

    # -- the callers' wishes ----------------------------------------------------------------------

    def propose(self, data: bytes) -> Proposed:
        """Append a command to the log.

        :raises NotLeader: this member does not lead; ``data["leader"]`` is who does, if known.
        :raises Busy: too much is uncommitted; nothing was done.
        :raises TooLarge: the command is over its bound.
        :raises Unavailable: leadership is being handed over.
        """
        raft = self._raft
        self._check_leads()
        if len(data) > raft.options.max_command_bytes:
            raise TooLarge(
                f"command of {len(data)} bytes, {raft.options.max_command_bytes} are allowed"
            )
        entry = Entry(raft.log.last_index + 1, raft.term, EntryKind.COMMAND, data)
        after = raft.uncommitted_bytes + entry.size_bytes
        # One command is always let in, or one larger than the bound would be busy for ever.
        if raft.uncommitted_bytes and after > raft.options.max_uncommitted_bytes:
            raise Busy(f"{raft.uncommitted_bytes} bytes are uncommitted", retry_after_s=0.1)
        replication.append_own(raft, [entry])
        return Proposed(entry.index, entry.term)

    def propose_config(self, change: ConfigChange) -> Proposed:
        """Append a membership change: of at most one voter directly, of more by a joint
        configuration, which is left by itself.

        :raises NotLeader: as for :meth:`propose`.
        :raises Conflict: another change is under way, this one does not fit, or a learner to be
            promoted has not caught up.
        :raises Unavailable: leadership is being handed over.
        """
        self._check_leads()
        membership.check_proposal(self._raft, change)
        entry = membership.propose(self._raft, change)
        return Proposed(entry.index, entry.term)

    def check_config(self, change: ConfigChange) -> None:
        """Whether :meth:`propose_config` would take ``change`` now; raises as it does."""
        self._check_leads()
        membership.check_proposal(self._raft, change)

    def _check_leads(self) -> None:
        raft = self._raft
        if not raft.is_leader():
            raise NotLeader("this member does not lead", leader=raft.leader)
        if raft.transferee:
            raise Unavailable(f"{raft.transferee} is about to lead", retry_after_s=0.05)

    def read_index(self) -> int:
        """Begin a linearizable read; see :func:`pbcluster.raft.reads.begin`."""
        return reads.begin(self._raft)

    def transfer_leadership(self, target: MemberId) -> None:
        """Hand leadership over; see :func:`pbcluster.raft.transfer.begin`."""
        transfer.begin(self._raft, target)

    def campaign(self) -> None:
        """Do not wait for the election timeout: for the first start of a group."""
        elections.campaign(self._raft, elections.Campaign.PRE_VOTE)

    # -- messages ---------------------------------------------------------------------------------

    def step(self, message: AnyMessage) -> None:
        """A message came in. Its frame was checked; late, doubled and foreign ones do no harm."""
        raft = self._raft
        if message.to != raft.id or message.sender == raft.id:
            return
        if isinstance(message, ANSWERS) and message.sender not in raft.tracker.progress:
            return
        if message.term > raft.term:
            if not self._meet_higher_term(message):
                return
        elif message.term < raft.term:
            self._answer_lower_term(message)
            return
        if isinstance(message, FROM_LEADER):
            following.recognise_leader(raft, message.sender)
        handle = _HANDLERS.get(type(message))
        if handle is not None:
            handle(raft, message)

    def _meet_higher_term(self, message: AnyMessage) -> bool:
        """Whether to go on with ``message``; the own term is raised where it must be."""
        raft = self._raft
        if elections.ignores_by_lease(raft, message):
            return False
        if isinstance(message, VoteRequest) and message.pre:
            return True
        if isinstance(message, VoteReply) and message.pre and message.granted:
            return True
        leader = message.sender if isinstance(message, FROM_LEADER) else NOBODY
        elections.become_follower(raft, message.term, leader)
        return True

    def _answer_lower_term(self, message: AnyMessage) -> None:
        """Tell an outdated leader or candidate our term; without it neither could ever rejoin."""
        raft = self._raft
        if isinstance(message, FROM_LEADER):
            raft.send_after(AppendReply(raft.id, message.sender, raft.term, 0, rejected=True))
        elif isinstance(message, VoteRequest) and message.pre:
            raft.send(VoteReply(raft.id, message.sender, raft.term, False, pre=True))

    def report_unreachable(self, member: MemberId) -> None:
        """A message to ``member`` could not be sent."""
        replication.report_unreachable(self._raft, member)

    def connection_lost(self, member: MemberId) -> None:
        """The connection to ``member`` ended, as it does when its process dies."""
        elections.connection_lost(self._raft, member)

    # -- the disk's answers -----------------------------------------------------------------------

    def persisted(self, token: PersistToken) -> None:
        """The ready of ``token`` and all before it are durable."""
        raft = self._raft
        raft.disk_wait_ticks = 0
        if token.number >= raft.unsynced_token:
            raft.unsynced_token = 0
        if token.snapshot_index:
            raft.log.snapshot_durable(token.snapshot_index)
        elections.own_vote_durable(raft, token.term, token.vote)
        # In a later term the entry may have been replaced, and replaced back, by writes that are
        # not durable yet; a later token will tell (see PersistToken).
        if token.term != raft.term:
            return
        if raft.log.stable_to(token.index, token.index_term) and raft.is_leader():
            replication.own_append_durable(raft)

    def applied(self, index: int) -> None:
        """Everything up to ``index`` was applied."""
        self._raft.log.applied_to(index)
        membership.leave_joint_if_due(self._raft)

    def compact(self, meta: SnapshotMeta, index: int) -> int:
        """``meta`` is a durable snapshot of this member's applied state; entries up to ``index``,
        at most the snapshot's, may be forgotten.

        :returns: up to where the log was forgotten: less than ``index`` while an older snapshot is
            being sent, whose receiver will need what follows it. The store may do the same.
        :raises InvariantViolated: the snapshot is not of applied state.
        """
        return snapshots.compact(self._raft, meta, index)

    def snapshots_in_use(self) -> tuple[SnapshotMeta, ...]:
        """The snapshots whose bytes may still be asked for: the latest, and those being sent."""
        return snapshots.in_use(self._raft)

    def install_snapshot(self, meta: SnapshotMeta) -> bool:
        """All chunks of ``meta`` are there and sound.

        :returns: whether the next ready will tell to install it; False: it is not needed any more.
        """
        return snapshots.install(self._raft, meta)

    def refuse_snapshot(self, meta: SnapshotMeta) -> None:
        """The chunks of ``meta`` do not match its checksum."""
        snapshots.refuse(self._raft, meta)

    def snapshot_failed(self, member: MemberId) -> None:
        """A chunk for ``member`` could not be read or sent."""
        snapshots.failed(self._raft, member)

    # -- effects ----------------------------------------------------------------------------------

    def untold_commit(self) -> int:
        """The commit index, where it waits for entries to go out with (``commit_waits``); else 0.
        To be given to :meth:`tell_commit` in some milliseconds."""
        return replication.untold_commit(self._raft)

    def tell_commit(self, index: int) -> None:
        """Who does not know yet that ``index`` is committed is told by the next ready."""
        self._raft.commit_due = max(self._raft.commit_due, index)

    def has_ready(self) -> bool:
        """Whether :meth:`ready` would tell anything to do."""
        self._collect()
        raft = self._raft
        return (
            raft.log.has_unsaved()
            or raft.log.has_next_to_apply()
            or not raft.outbox.is_empty()
            or self._hard_state() != self._last_hard
            or (raft.role, raft.term, raft.leader) != self._last_shown
        )

    def ready(self) -> Ready:
        """Take all effects out. Each is given once; the driver owes the rest."""
        raft = self._raft
        committed = self._take_committed()
        self._collect()
        snapshot = raft.log.take_snapshot_to_persist()
        entries = raft.log.unsaved()
        hard, last_hard = self._hard_state(), self._last_hard
        self._last_hard = hard
        out, raft.outbox = raft.outbox, Outbox()
        self._last_shown = (raft.role, raft.term, raft.leader)
        voted = hard.term != last_hard.term or hard.vote != last_hard.vote
        must_sync = bool(entries) or snapshot is not None or voted
        token = self._next_token(snapshot)
        if must_sync:
            raft.unsynced_token = token.number
        return Ready(
            token=token,
            role=raft.role,
            term=raft.term,
            leader=raft.leader,
            snapshot=snapshot,
            entries=entries,
            hard_state=hard if hard != last_hard else None,
            must_sync=must_sync,
            messages=tuple(out.messages),
            after=tuple(out.after),
            committed=committed,
            conf=raft.tracker.conf,
            reads=tuple(out.reads),
            cancelled_reads=tuple(out.cancelled_reads),
            chunks_to_send=tuple(out.chunks_to_send),
            chunks_received=tuple(out.chunks_received),
        )

    def _collect(self) -> None:
        """Turn what was only noted into messages: once for many inputs."""
        raft = self._raft
        if raft.is_leader():
            replication.flush(raft)
            reads.start_round_if_due(raft)

    def _take_committed(self) -> tuple[Entry, ...]:
        """Hand out entries to apply; a membership change among them is in force from now on."""
        raft = self._raft
        committed = raft.log.next_to_apply(raft.options.max_applying_bytes)
        for entry in committed:
            if entry.kind is EntryKind.CONFIG:
                membership.apply_entry(raft, entry)
        return committed

    def _hard_state(self) -> HardState:
        raft = self._raft
        return HardState(raft.term, raft.vote, raft.log.commit)

    def _next_token(self, snapshot: SnapshotMeta | None) -> PersistToken:
        raft = self._raft
        self._tokens += 1
        return PersistToken(
            number=self._tokens,
            term=raft.term,
            vote=raft.vote,
            index=raft.log.last_index,
            index_term=raft.log.last_term,
            snapshot_index=snapshot.index if snapshot else 0,
        )

    # -- questions --------------------------------------------------------------------------------

    @property
    def conf(self) -> ConfState:
        """The membership in force."""
        return self._raft.tracker.conf

    @property
    def transferee(self) -> MemberId:
        """To whom leadership is being handed; nobody: empty."""
        return self._raft.transferee

    def status(self) -> Status:
        """Everything worth showing."""
        return self._raft.status()


_HANDLERS: dict[type, Callable[[Raft, Any], None]] = {
    VoteRequest: elections.handle_vote_request,
    VoteReply: elections.handle_vote_reply,
    Append: following.handle_append,
    AppendReply: replication.handle_append_reply,
    Heartbeat: following.handle_heartbeat,
    HeartbeatReply: replication.handle_heartbeat_reply,
    SnapshotChunk: snapshots.handle_chunk,
    SnapshotReply: snapshots.handle_reply,
    TimeoutNow: transfer.handle_timeout_now,
    ReadRequest: reads.handle_request,
    ReadReply: reads.handle_reply,
}

__all__ = ["InvariantViolated", "RaftCore"]

"""How a leader gets its log into the others (paper, section 5.3).

Entries go out before they are durable here; the leader counts itself like any other member, by what
its driver reports as durable. Only an entry of the leader's own term is committed by counting, and
commits all before it (paper, section 5.4.2). Appends are collected: proposals only lengthen the
log, and :func:`flush`, called once for each ``Ready``, sends each member what is new, pipelined
within the bounds of its progress.
"""

from __future__ import annotations

from collections.abc import Sequence

from pbcluster.raft import reads, snapshots, transfer
from pbcluster.raft.messages import (
    Append,
    AppendReply,
    Entry,
    Heartbeat,
    HeartbeatReply,
    MemberId,
)
from pbcluster.raft.progress import Progress, ProgressState
from pbcluster.raft.state import Raft


def append_own(raft: Raft, entries: Sequence[Entry]) -> None:
    """Lengthen the leader's log."""
    raft.log.append(entries)
    raft.uncommitted_bytes += sum(entry.size_bytes for entry in entries)


# -- sending --------------------------------------------------------------------------------------


def flush(raft: Raft) -> None:
    """Send everyone all that is new and fits."""
    last_index = raft.log.last_index
    for member, progress in raft.tracker.progress.items():
        if member == raft.id or progress.is_paused():
            continue
        bump = _tells_commit_now(raft, progress)
        if progress.next > last_index and not bump:
            continue
        while send_append(raft, member, progress, even_empty=bump):
            bump = False


def _tells_commit_now(raft: Raft, progress: Progress) -> bool:
    """Whether an append without entries is worth it. A membership change never waits: who leaves by
    it is told nothing any more once it is applied here."""
    log = raft.log
    if not progress.can_bump_commit(log.commit):
        return False
    told = progress.sent_commit
    waits = raft.options.commit_waits and told >= raft.commit_due
    return not waits or log.has_config_in(told, log.commit)


def untold_commit(raft: Raft) -> int:
    """The commit index, if it waits for entries to go out with; else 0."""
    if raft.is_leader() and raft.options.commit_waits:
        commit = raft.log.commit
        for member, progress in raft.tracker.progress.items():
            if member != raft.id and progress.can_bump_commit(commit):
                return commit
    return 0


def send_append(raft: Raft, member: MemberId, progress: Progress, *, even_empty: bool) -> bool:
    """Send one append, or begin a snapshot where the log does not reach back.

    :returns: whether an append was sent that may be followed by another.
    """
    if progress.is_paused():
        return False
    log = raft.log
    prev_index = progress.next - 1
    if prev_index >= log.last_index and not even_empty:
        return False
    prev_term = log.term(prev_index)
    if prev_term is None:
        snapshots.begin(raft, member, progress)
        return False
    entries: tuple[Entry, ...] = ()
    if progress.may_send_entries():
        entries = log.read(progress.next, raft.options.max_append_bytes)
    if not entries and not even_empty:
        return False
    append = Append(raft.id, member, raft.term, prev_index, prev_term, log.commit, entries)
    raft.send(append)
    size = sum(entry.size_bytes for entry in entries)
    progress.sent_entries(prev_index + len(entries), len(entries), size)
    progress.sent_commit = max(progress.sent_commit, log.commit)
    return bool(entries)


def broadcast_heartbeat(raft: Raft) -> None:
    """Tell everyone who leads, what is committed as far as they have it, and the round of reads."""
    raft.heartbeat_elapsed = 0
    number = reads.round_for_heartbeat(raft)
    for member, progress in raft.tracker.progress.items():
        if member != raft.id:
            # Never beyond what the member is known to hold: its own entry there may be another.
            commit = min(progress.match, raft.log.commit)
            raft.send(Heartbeat(raft.id, member, raft.term, commit, number))


# -- answers --------------------------------------------------------------------------------------


def handle_append_reply(raft: Raft, message: AppendReply) -> None:
    """A member has more, or has something else."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is None:
        return
    progress.hear()
    if message.rejected:
        _handle_rejection(raft, message, progress)
        return
    news = progress.acknowledged(message.index)
    if _needs_no_snapshot(raft, progress, message.index):
        progress.become_probe()
    probe_answered = progress.state is ProgressState.PROBE and progress.match == message.index
    if not news and not probe_answered:
        return
    if progress.state is ProgressState.REPLICATE:
        progress.inflights.free_to(message.index)
        progress.paused = False
    elif progress.state is ProgressState.PROBE:
        progress.become_replicate()
    maybe_commit(raft)
    transfer.check_caught_up(raft, message.sender)


def _needs_no_snapshot(raft: Raft, progress: Progress, index: int) -> bool:
    """Whether a member that is sent a snapshot has it now, or came so far that the log can do the
    rest, from wherever. (If it has this one and the log begins later, it will need another.)"""
    meta = progress.pending
    if meta is None:
        return False
    return index >= meta.index or progress.match >= raft.log.compacted_index


def _handle_rejection(raft: Raft, message: AppendReply, progress: Progress) -> None:
    """The logs differ at ``message.index``. The hint skips what the follower knows to differ; our
    own log skips what cannot agree either: where our term is higher than the hint's."""
    hint = message.hint_index
    if message.hint_term > 0:
        hint, _term = raft.log.conflict_hint(hint, message.hint_term)
    if progress.rejected(message.index, hint):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        send_append(raft, message.sender, progress, even_empty=True)


def handle_heartbeat_reply(raft: Raft, message: HeartbeatReply) -> None:
    """A member lives. If it may lack something, or a probe or a full pipe may have been lost, send
    an append, empty if need be: its answer clears things up."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is None:
        return
    progress.hear()
    progress.paused = False
    if progress.match < raft.log.last_index or progress.state is ProgressState.PROBE:
        send_append(raft, message.sender, progress, even_empty=True)
    reads.acknowledge(raft, message.sender, message.round)


def own_append_durable(raft: Raft) -> None:
    """This leader's own log is durable further than before."""
    own = raft.tracker.progress.get(raft.id)
    if own is not None and own.acknowledged(raft.log.durable):
        maybe_commit(raft)


def maybe_commit(raft: Raft) -> None:
    """Commit what a quorum has durable, if that reaches an entry of this term."""
    log = raft.log
    index = raft.tracker.agreed_index()
    if index <= log.commit or log.term(index) != raft.term:
        return
    newly = log.read(log.commit + 1, 2**62, index)
    log.commit_to(index)
    raft.uncommitted_bytes -= sum(entry.size_bytes for entry in newly)


def report_unreachable(raft: Raft, member: MemberId) -> None:
    """The driver could not send to ``member``: what is in its pipe is probably lost."""
    progress = raft.tracker.progress.get(member)
    if progress is not None and progress.state is ProgressState.REPLICATE:
        progress.become_probe()

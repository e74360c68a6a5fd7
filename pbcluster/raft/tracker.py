"""The membership in force, what is known of each member, and the votes of the current election."""

from __future__ import annotations

from pbcluster.raft import quorum
from pbcluster.raft.messages import ConfState, MemberId
from pbcluster.raft.options import RaftOptions
from pbcluster.raft.progress import Inflights, Progress
from pbcluster.raft.quorum import VoteResult


class Tracker:
    """One a core. ``progress`` has exactly the members of ``conf``, sorted by id: everything that
    goes through it happens in the same order on every run."""

    __slots__ = ("_options", "conf", "progress", "votes")

    def __init__(self, options: RaftOptions, conf: ConfState, next_index: int) -> None:
        self._options = options
        self.conf = conf
        self.votes: dict[MemberId, bool] = {}
        self.progress: dict[MemberId, Progress] = {}
        self.switch(conf, next_index)

    def _new_progress(self, next_index: int) -> Progress:
        options = self._options
        window = Inflights(options.max_inflight_appends, options.max_inflight_bytes)
        return Progress(next_index, window)

    def switch(self, conf: ConfState, next_index: int) -> None:
        """``conf`` is in force from now on. A new member counts as active until it had the time of
        one check to speak, or adding it could end a leadership."""
        old = self.progress
        self.conf = conf
        self.progress = {}
        for member in conf.members():
            known = old.get(member)
            if known is None:
                known = self._new_progress(next_index)
                known.recent_active = True
            self.progress[member] = known

    def reset(self, next_index: int) -> None:
        """A new term or role: forget what was known of everyone."""
        self.votes = {}
        self.progress = {member: self._new_progress(next_index) for member in self.progress}

    def agreed_index(self) -> int:
        """The highest index that a quorum has durable."""
        match = {member: progress.match for member, progress in self.progress.items()}
        return quorum.agreed_index(self.conf, match)

    def record_vote(self, member: MemberId, granted: bool) -> VoteResult:
        """Count the first answer of ``member``; the result so far."""
        self.votes.setdefault(member, granted)
        return quorum.vote_result(self.conf, self.votes)

    def quorum_active(self) -> bool:
        """Whether a quorum was heard from since the last :meth:`clear_active`."""
        active = {member: one.recent_active for member, one in self.progress.items()}
        return quorum.vote_result(self.conf, active) is VoteResult.WON

    def clear_active(self, but: MemberId) -> None:
        """Begin a new check of the quorum; ``but`` is the leader itself."""
        for member, progress in self.progress.items():
            progress.heard_before, progress.heard = progress.heard, False
            progress.recent_active = member == but

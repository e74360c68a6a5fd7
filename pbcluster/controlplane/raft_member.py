"""One of several members: the registry, replicated by Raft.

A command is proposed at the leader, committed when a majority has it on disk, then applied to each
member's registry in log order; the proposer is answered after that. Entries that Raft itself needs
take a log index each and change nothing. A read barrier is a ReadIndex: at the leader it waits for
a round of heartbeats that began after the call, and all that wait share one; any other member asks
the leader. So an acknowledgement of a lease that awaits it was confirmed by a majority.

``is_leader`` is true only once an entry of the leader's own term is applied: before, the registry
may lack what was acknowledged by others. What waits when leadership ends is answered at once: done,
or *unknown* (to be repeated with the same idempotency key); a proposal that another entry replaced
was *not* done.

Who waits for a commit does so in ``raft_proposals``, for a read in ``raft_reads``, for a leader in
``raft_leader_waits``. It has no socket, file or thread of its own: those are ``raft_driver``'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster.controlplane import commands
from pbcluster.controlplane.commands import AnyCommand, AuditNote, Keyed, SetMember
from pbcluster.controlplane.join_commands import Join, RemoveProcess, SetProcess
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.raft_driver import RaftDriver
from pbcluster.controlplane.raft_handing_over import hand_over
from pbcluster.controlplane.raft_intervals import NewCore, new_core
from pbcluster.controlplane.raft_leader_waits import LeaderWaits
from pbcluster.controlplane.raft_proposals import Proposals
from pbcluster.controlplane.raft_reads import Reads
from pbcluster.controlplane.raft_registry import ReplicatedRegistry
from pbcluster.controlplane.raft_snapshots import KEEP_ENTRIES, SNAPSHOT_EVERY
from pbcluster.controlplane.raft_store import MemberStore
from pbcluster.controlplane.raft_subscribers import Subscribers
from pbcluster.controlplane.raft_transport import RaftNetwork
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.errors import (
    Busy,
    ConfigError,
    NotLeader,
    Unavailable,
)
from pbcluster.raft import (
    ConfigChange,
    Entry,
    EntryKind,
    MemberId,
    Role,
    SnapshotMeta,
    Status,
)
from pbcluster.raft.confchange import after
from pbcluster.raft.state import RandomSource

_LOOK_EVERY_S = 0.25
#: A leader that stops waits no longer for its successor, nor do proposals.
HAND_OVER_S = 0.5
#: From the removal of this member to its end.
REMOVED_GRACE_S = 1.0
#: A member asks so often whether it left meanwhile: one that does not vote would never say anything
#: else. It also looks for those that it cannot reach.
ASK_STANDING_S = 2.0

log = Logger()


def _removed(member: MemberId) -> str:
    return f"{member} was removed from the control plane: stop it; its id never comes back"


class RaftMember(ReplicatedRegistry):
    """``Consensus`` with others to agree with."""

    def __init__(
        self,
        reactor: IReactorFromThreads,
        clock: IReactorTime,
        store: MemberStore,
        network: RaftNetwork,
        member: MemberId,
        base_domain: str,
        random: RandomSource,
        in_thread: Callable[..., Awaitable[Any]],
        failed: Callable[[str], None],
        *,
        snapshot_every: int = SNAPSHOT_EVERY,
        keep_entries: int = KEEP_ENTRIES,
        new_core: NewCore = new_core,
    ) -> None:
        """
        :param clock: must not jump, and must go on while the machine sleeps.
        :param in_thread: calls a slow function in a thread, like ``deferToThreadPool``.
        :param failed: called with the reason when this member can no longer be trusted: the
            process must end.
        """
        super().__init__(member, base_domain)
        self._clock = clock
        self._store = store
        self._failed = failed
        self._driver = RaftDriver(
            reactor,
            clock,
            store,
            network,
            self,
            member,
            random,
            in_thread,
            self._broke,
            snapshot_every=snapshot_every,
            keep_entries=keep_entries,
            new_core=new_core,
        )
        self._network = network
        self._out = False
        #: The term in which this member leads and has applied an entry of its own; else 0.
        self._led_term = 0
        self._proposals = Proposals(clock, self._not_leader)
        self._reads = Reads(clock, self._driver, self._not_leader)
        self._leader_waits = LeaderWaits(clock)
        self._subscribers = Subscribers()
        self._overdue = LoopingCall(self._look_around)
        self._ask_standing_at = 0.0
        self._overdue.clock = clock

    # -- Consensus --------------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        """Whether this member leads and knows all that was acknowledged."""
        driver = self._driver
        return driver.running and driver.role is Role.LEADER and self._led_term == driver.term

    @property
    def leader_endpoint(self) -> str:
        """The leader's *id*, empty if it is unknown or silent: callers know members by endpoint
        and by id, and need not be sent to a dead one."""
        driver = self._driver
        if driver.role is Role.LEADER:
            return driver.leader
        return "" if driver.leader_watch.silent() else driver.leader

    async def start(self) -> None:
        """Recover and take part; a leader is there soon after a majority did so.

        :raises StorageCorrupt: names what fails its check.
        :raises ConfigError: this member was removed from the group.
        """
        self._driver.start()
        if self._registry.roster.is_former(self.id):
            self._driver.stop()
            raise ConfigError(_removed(self.id))
        self._overdue.start(_LOOK_EVERY_S, now=False).addErrback(
            lambda failure: log.failure("the look for overdue answers ended", failure)
        )
        log.info("recovered the registry up to index {index}", index=self._registry.applied_index)

    async def stop(self) -> None:
        """Finish what is being written and close."""
        if self._overdue.running:
            self._overdue.stop()
        self._driver.stop()
        # Now nobody can begin to wait any more.
        self._give_up(lambda: Unavailable("this member stops"))

    async def leader_known(self, timeout_s: float) -> None:
        """Wait until a leader is known, at most ``timeout_s``."""
        if self.is_leader or (self.leader_endpoint and self._driver.role is not Role.LEADER):
            return
        await self._next_leader(timeout_s)

    async def _next_leader(self, timeout_s: float) -> None:
        """Wait until a leader is heard of, at most ``timeout_s``."""
        if self._driver.running:
            await self._leader_waits.wait(timeout_s)

    def leader_heard(self) -> None:
        """There is a leader: whoever waits for one goes on."""
        self._leader_waits.heard()

    def subscribe(self, callback: Callable[[Applied], None]) -> None:
        """Call ``callback`` after each applied command that was not already applied here before a
        restart, at every member."""
        self._subscribers.applied.append(callback)

    def subscribe_leadership(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback`` with True when :attr:`is_leader` becomes true, with False when it was
        and is no more; what waited has been answered by then."""
        self._subscribers.leadership.append(callback)

    async def propose(
        self, command: AnyCommand, key: str = "", note: AuditNote | None = None
    ) -> Outcome:
        """Commit and apply ``command``; see :class:`Consensus`.

        While leadership is being handed over it waits, so that it can say who leads.

        :raises DeadlineExceeded: leadership or patience ended first: whether it was or will be done
            is unknown; repeat it with the same key.
        """
        await self._need_leadership()
        self._proposals.check_room()
        if self._store.nearly_full():
            raise Busy("the store is nearly full: changes are refused, reads go on")
        data = commands.encode(Keyed(key, command, note))
        outcome = await self._proposals.outcome(self._driver.propose(data))
        if outcome.error is not None:
            raise outcome.error.exception()
        return outcome

    async def _need_leadership(self) -> None:
        """:raises NotLeader: this member does not lead, or it just handed over."""
        core = self._driver.core
        if self.is_leader and core is not None and core.transferee:
            await self._next_leader(HAND_OVER_S)
        if not self.is_leader:
            raise self._not_leader()

    async def read_barrier(self, *, patient: bool = False) -> None:
        """See :class:`Consensus`. :raises Unavailable: no leader confirmed it."""
        await self._reads.barrier(patient=patient)

    def _not_leader(self) -> NotLeader:
        # About to lead, but not able to say so yet: nobody else is to be asked.
        leader = "" if self._driver.role is Role.LEADER else self.leader_endpoint
        return NotLeader("this member is not the leader", leader=leader, retry_after_s=0.1)

    # -- for operators ----------------------------------------------------------------------------

    def status(self) -> Status | None:
        """Role, term, indexes, members; None when it does not run."""
        return self._driver.status()

    def transfer_leadership(self, target: MemberId) -> None:
        """Hand leadership over.

        :raises NotLeader: this member does not lead.
        :raises Conflict: ``target`` cannot lead.
        """
        if not self._driver.running:
            raise self._not_leader()
        self._driver.transfer_leadership(target)

    async def hand_over(self) -> None:
        """Before a stop: let the member that is furthest lead, if this one does. Returns when it
        leads no more, or soon."""
        await hand_over(self._driver, lambda: self.is_leader, self._clock, HAND_OVER_S)

    async def change_members(self, change: ConfigChange) -> None:
        """Commit and apply a membership change; the rules are ``membership``'s.

        :raises NotLeader: this member does not lead.
        :raises Conflict: it does not fit, or another is under way.
        :raises Unavailable: a learner to be promoted was not heard from lately.
        :raises DeadlineExceeded: whether it was done is unknown.
        """
        await self._need_leadership()
        await self._proposals.outcome(self._driver.propose_config(change))

    def check_change(self, change: ConfigChange) -> None:
        """Whether :meth:`change_members` would be taken now.

        :raises NotLeader: this member does not lead.
        :raises Conflict, Unavailable: as there.
        """
        core = self._driver.core
        if core is None or not self.is_leader:
            raise self._not_leader()
        core.check_config(change)

    def was_removed(self) -> None:
        """The group took this member out: its process must end, soon."""
        if self._out or not self._driver.running:
            return
        self._out = True
        # Whoever asked for it, and the others, still hear of it.
        self._clock.callLater(REMOVED_GRACE_S, self._driver.end, _removed(self.id))

    @property
    def endpoint(self) -> str:
        """Where the other members are heard."""
        return self._network.endpoint

    def counts(self) -> dict[str, int]:
        """Dropped frames by reason."""
        return self._network.counts()

    # -- the state machine, for the driver --------------------------------------------------------

    def install(self, state: Registry, meta: SnapshotMeta) -> None:
        """``state`` is the registry from now on."""
        if state.applied_index != meta.index:
            raise AssertionError(f"snapshot {meta.index} holds index {state.applied_index}")
        self._registry = state
        self._conf = meta.conf
        self._network.follow(self._conf.members(), state.roster)
        if state.roster.is_former(self.id):
            self.was_removed()
        self._reads.answer(self._registry.applied_index)

    def apply(self, entry: Entry) -> None:
        """The next committed entry."""
        if entry.kind is EntryKind.COMMAND:
            keyed = commands.decode(entry.data)
            applied = self._registry.apply(entry.index, keyed)
            if isinstance(keyed.command, SetMember | Join | SetProcess | RemoveProcess):
                self._network.follow(self._conf.members(), self._registry.roster)
            self._subscribers.tell(applied)
            self._proposals.answer(entry, applied.outcome)
        else:
            self._apply_other(entry)
            self._proposals.answer(entry, Outcome(entry.index))
        self._begin_to_lead(entry)
        self._reads.answer(self._registry.applied_index)

    def _apply_other(self, entry: Entry) -> None:
        """An entry of Raft's own. The membership changes as in the core, but entry by entry, so
        that the registry says the same at the same index everywhere."""
        before = self._conf
        conf = after(before, entry.data) if entry.kind is EntryKind.CONFIG else before
        if conf == before:
            self._registry.skip(entry.index)
            return
        self._conf = conf
        left = set(before.members()) - set(conf.members())
        applied = self._registry.members_changed(entry.index, left)
        self._network.follow(conf.members(), self._registry.roster)
        log.info("the members are {members} now", members=", ".join(conf.members()))
        self._subscribers.tell(applied)
        if self.id in left:
            self.was_removed()

    def _begin_to_lead(self, entry: Entry) -> None:
        driver = self._driver
        if driver.role is Role.LEADER and entry.term == driver.term != self._led_term:
            self._led_term = driver.term
            log.info(
                "leads in term {term} from index {index}, {ms} ms after the last leader was heard",
                term=entry.term,
                index=entry.index,
                ms=round(driver.leader_watch.silence_s() * 1000),
            )
            self._subscribers.tell_leadership(True)
            self.leader_heard()

    def role_changed(self, role: Role, term: int, leader: MemberId) -> None:
        """What this member is changed, or who leads."""
        if role is not Role.LEADER and leader:
            log.info("{leader} leads in term {term}", leader=leader, term=term)
            self.leader_heard()
        if role is Role.LEADER and self._led_term in (0, term):
            return
        self._lose_leadership()

    def _lose_leadership(self) -> None:
        self._proposals.lose()
        if self._led_term:
            log.info("leads no more in term {term}", term=self._led_term)
            self._led_term = 0
            self._subscribers.tell_leadership(False)

    # -- reads ------------------------------------------------------------------------------------

    def read_allowed(self, context: int, index: int) -> None:
        """The read may be answered once ``index`` is applied."""
        self._reads.allowed(context, index, self._registry.applied_index)

    def read_cancelled(self, context: int) -> None:
        """The read may never be answered."""
        self._reads.cancelled(context)

    # -- the end of patience ----------------------------------------------------------------------

    def _look_around(self) -> None:
        now = self._clock.seconds()
        if now >= self._ask_standing_at:
            self._ask_standing_at = now + ASK_STANDING_S
            self._network.ask_standing()
        self._end_overdue(now)

    def _end_overdue(self, now: float) -> None:
        self._proposals.end_overdue(now)
        self._reads.end_overdue(now)

    def _broke(self, reason: str) -> None:
        self._lose_leadership()
        self._give_up(lambda: Unavailable(reason))
        self._failed(reason)

    def _give_up(self, error: Callable[[], Unavailable]) -> None:
        """Answer everybody who waits."""
        self.leader_heard()
        self._proposals.give_up(error)
        self._reads.give_up(error)

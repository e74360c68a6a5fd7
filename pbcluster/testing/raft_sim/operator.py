"""Who changes the membership: adds and promotes learners, removes, replaces, transfers.

Works through the production ``Membership`` of whatever member believes to lead, like a person with
a command line (joint changes, which no command asks for, are proposed directly), and never does
what would lose the group legitimately: a disk is wiped only when the rest is a majority and no
other replacement is under way.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pbcluster.errors import PBClusterError
from pbcluster.raft import ConfigAction, ConfigChange, ConfigStep, ConfState, MemberId
from pbcluster.records import MemberRecord

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.member import SimMember
    from pbcluster.testing.raft_sim.world import World

#: A replacement tries its next step so often.
STEP_TIME = 60
#: The group never has fewer or more voters than these.
MIN_VOTERS = 3
MAX_VOTERS = 5


def record_of(member: MemberId) -> MemberRecord:
    """Where a member is: nobody asks in here, but no two are in the same place."""
    return MemberRecord(member, *(f"{use}://{member}" for use in ("raft", "ask", "tell", "admin")))


class SimOperator:
    """One a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        #: A lost member that must be taken out, and the one that takes its place.
        self._replacing: tuple[MemberId, MemberId] | None = None
        self._joining: MemberId = ""
        self._leaving: MemberId = ""
        self._names = 0

    def leader(self) -> SimMember | None:
        """Whoever leads in the highest term, as far as anyone can see."""
        leaders = [one for one in self.world.members.values() if one.leads()]
        return max(leaders, key=lambda one: one.core.status().term if one.core else 0, default=None)

    def any_leader(self, newest: bool) -> MemberId:
        """If several believe to lead: the one in the highest or in the lowest term."""
        leaders = [one for one in self.world.members.values() if one.leads()]
        if len(leaders) < 2:
            return ""
        leaders.sort(key=lambda one: one.core.status().term if one.core else 0)
        return leaders[-1 if newest else 0].id

    def conf(self) -> ConfState:
        """The membership the leader knows, or none."""
        leader = self.leader()
        return leader.core.conf if leader is not None and leader.core else ConfState()

    def _change(self, *steps: tuple[ConfigAction, MemberId]) -> bool:
        leader = self.leader()
        if leader is None or leader.core is None or leader.is_paused():
            return False
        self.world.trace(f"{leader.id} is asked for {steps}")
        action, member = steps[0]
        if len(steps) == 1 and action is ConfigAction.REMOVE:
            leader.ask_group(leader.group.remove_member(member))
            return True
        if len(steps) == 1 and action is ConfigAction.ADD_LEARNER:
            leader.ask_group(leader.group.add_member(record_of(member)))
            return True
        if len(steps) == 1:
            return True  # whoever leads promotes it by itself
        change = ConfigChange(tuple(ConfigStep(action, member) for action, member in steps))
        try:
            leader.driver.propose_config(change)
        except PBClusterError:
            return False
        return True

    def _new_member(self) -> MemberId:
        self._names += 1
        name = f"n{self._names}"
        self.world.join(name)
        return name

    # -- wishes of the schedule -------------------------------------------------------------------

    def random_change(self, choice: int, number: int) -> None:
        """Add a learner and promote it later, or remove someone."""
        conf = self.conf()
        if self._replacing or self._joining or conf.joint or not conf.voters:
            return
        if choice % 2 and len(conf.voters) > MIN_VOTERS:
            self._change((ConfigAction.REMOVE, conf.voters[number % len(conf.voters)]))
        elif len(conf.voters) < MAX_VOTERS:
            self._joining = self._new_member()
            # Half of the time it takes the place of another, by joint consensus; but not if the
            # vote of who leaves could be needed to learn that it left.
            replaces = number % 4 < 2 and len(conf.voters) >= MIN_VOTERS
            self._leaving = conf.voters[number % len(conf.voters)] if replaces else ""
            self.world.after(1, self._join_step, 0)

    def replace_two(self, number: int) -> None:
        """By joint consensus remove one voter, demote another, and promote a learner if any."""
        conf = self.conf()
        if self._replacing or self._joining or conf.joint or len(conf.voters) < MIN_VOTERS + 1:
            return
        first = conf.voters[number % len(conf.voters)]
        second = conf.voters[(number + 1) % len(conf.voters)]
        steps = [(ConfigAction.REMOVE, first), (ConfigAction.ADD_LEARNER, second)]
        steps += [(ConfigAction.PROMOTE, member) for member in conf.learners[:1]]
        self._change(*steps)

    def wipe(self, number: int) -> None:
        """A member loses its disk; a new one takes its place under a new id."""
        conf = self.conf()
        if self._replacing or self._joining or conf.joint or len(conf.voters) < MIN_VOTERS:
            return
        leader = self.leader()
        if leader is None or leader.core is None:
            return
        if leader.core._raft.pending_config_index > leader.applied:
            return
        lost = conf.voters[number % len(conf.voters)]
        self.world.trace(f"{lost} loses its disk")
        self.world.members[lost].crash(0)
        self.world.members[lost].wiped = True
        self._replacing = (lost, self._new_member())
        self.world.after(STEP_TIME, self._replace_step, None)

    def transfer(self, number: int) -> None:
        """Hand leadership over."""
        leader = self.leader()
        if leader is None or leader.core is None or leader.is_paused():
            return
        voters = leader.core.conf.voters
        if voters:
            with suppress(PBClusterError):
                leader.raft.transfer_leadership(voters[number % len(voters)])

    # -- steps ------------------------------------------------------------------------------------

    def busy(self) -> bool:
        """Whether a replacement or a joining is not finished."""
        return bool(self._replacing or self._joining)

    def _join_step(self, tries: int) -> None:
        member = self._joining
        conf = self.conf()
        if member in conf.voters or tries > 100:
            self._joining = ""
            return
        if conf.voters and not conf.joint:
            if member not in conf.learners:
                self._change((ConfigAction.ADD_LEARNER, member))
            elif self._leaving in conf.voters:
                self._change((ConfigAction.PROMOTE, member), (ConfigAction.REMOVE, self._leaving))
            else:
                self._change((ConfigAction.PROMOTE, member))
        self.world.after(STEP_TIME, self._join_step, tries + 1)

    def _replace_step(self, _nothing: object) -> None:
        assert self._replacing is not None
        lost, new = self._replacing
        conf = self.conf()
        if conf.voters and not conf.joint:
            if lost in conf.members():
                self._change((ConfigAction.REMOVE, lost))
            elif new in conf.voters:
                self._replacing = None
                return
            elif new in conf.learners:
                self._change((ConfigAction.PROMOTE, new))
            else:
                self._change((ConfigAction.ADD_LEARNER, new))
        self.world.after(STEP_TIME, self._replace_step, None)

"""Who belongs to the group: what operators ask for, and what the leader does about it by itself.

A new member joins in steps, each of which may be repeated: its addresses and its key go into the
registry, so that every member can reach it; it becomes a learner, which gets the log (or a
snapshot) but has no vote; once it has caught up the leader promotes it. A removal is one step.
An id that left never comes back (``roster``).

The leader also tells the registry where the members of the settings are. What its own settings say
wins over what the registry says of them: that is how a member that moved to another port becomes
known. Everything here goes through the log; only the leader proposes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster.controlplane import commands as c
from pbcluster.controlplane.commands import AnyCommand
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import Conflict, NotFound, PBClusterError
from pbcluster.raft import ConfigAction, ConfigChange, ConfigStep, ConfState, MemberId, Status
from pbcluster.records import MemberRecord, ProcessRecord

#: The leader looks so often whether a learner has caught up.
LOOK_EVERY_S = 0.25

log = Logger()

Work = Callable[[], Coroutine[Any, Any, Any]]


class Changeable(Protocol):
    """What is needed of the member."""

    @property
    def is_leader(self) -> bool:
        """Whether it leads."""

    @property
    def registry(self) -> Registry:
        """Applied state."""

    @property
    def conf(self) -> ConfState:
        """The membership as of the registry's index."""

    async def propose(self, command: AnyCommand, key: str = "") -> Outcome:
        """Commit a command."""

    async def change_members(self, change: ConfigChange) -> None:
        """Commit a membership change."""

    def check_change(self, change: ConfigChange) -> None:
        """:raises Conflict: it would be refused now."""

    def status(self) -> Status | None:
        """Role, term, indexes, members."""

    def transfer_leadership(self, target: MemberId) -> None:
        """Hand leadership over."""


def _step(action: ConfigAction, member: MemberId) -> ConfigChange:
    return ConfigChange((ConfigStep(action, member),))


class Membership:
    """The group of one member."""

    def __init__(
        self,
        clock: IReactorTime,
        member: Changeable,
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._member = member
        self._settings: dict[MemberId, MemberRecord] = {}
        self._processes: tuple[ProcessRecord, ...] = ()
        self._wall_clock = wall_clock
        self._busy = False
        #: Learner → attempts to promote it.
        self._tries: dict[MemberId, int] = {}
        #: Records of the settings that contradict the registry, as far as the log was told.
        self._refused: list[MemberRecord | ProcessRecord] = []
        self._looks = LoopingCall(self._look)
        self._looks.clock = clock

    def start(
        self,
        settings: Mapping[MemberId, MemberRecord],
        processes: Iterable[ProcessRecord] = (),
    ) -> None:
        """Look after the group whenever this member leads.

        :param settings: the members that the settings name.
        :param processes: the nodes and gateways that they name: the registry learns of them, so
            that members of other hosts let them in too.
        """
        self.use(settings, processes)
        looking = self._looks.start(LOOK_EVERY_S, now=False)
        looking.addErrback(lambda failure: log.failure("the look after the group ended", failure))

    def use(
        self, settings: Mapping[MemberId, MemberRecord], processes: Iterable[ProcessRecord]
    ) -> None:
        """What the settings name was read again."""
        self._settings = dict(settings)
        self._processes = tuple(processes)
        self._refused.clear()

    def stop(self) -> None:
        """Do nothing more."""
        if self._looks.running:
            self._looks.stop()

    # -- for operators ----------------------------------------------------------------------------

    def status(self) -> Status | None:
        """As the member's."""
        return self._member.status()

    def transfer_leadership(self, target: MemberId) -> None:
        """As the member's."""
        self._member.transfer_leadership(target)

    def records(self) -> dict[MemberId, MemberRecord]:
        """Where the members are reached, as far as the registry knows."""
        return {record.id: record for record in self._member.registry.roster.members()}

    def check_add(self, member: MemberId) -> None:
        """:raises Conflict: a new member could not join now."""
        if member not in self._member.conf.members():
            self._member.check_change(_step(ConfigAction.ADD_LEARNER, member))

    async def add_member(self, record: MemberRecord) -> None:
        """Let a new member join as a learner; the leader promotes it once it has caught up. The
        same one again changes nothing.

        :raises NotLeader: this member does not lead.
        :raises Conflict: the id was used before, its key or an address is another's, or another
            change is under way.
        :raises DeadlineExceeded: how much of it was done is unknown; ask again.
        """
        conf = self._member.conf
        if record.id in conf.members() and self.records().get(record.id) != record:
            raise Conflict(f"{record.id} is a member already, with other addresses", field="id")
        change = _step(ConfigAction.ADD_LEARNER, record.id)
        # Before anything is done: a record without its member would be in the way.
        self.check_add(record.id)
        await self._member.propose(c.SetMember(self._wall_clock(), record))
        if record.id not in self._member.conf.members():
            await self._member.change_members(change)
            log.warn("{member} joins the group as a learner", member=record.id)

    async def remove_member(self, member: MemberId) -> None:
        """Take a member out of the group; it must not come back under its id.

        :raises NotLeader: this member does not lead.
        :raises NotFound: it is none, and never was.
        :raises Conflict: it is the last voter, those that stay are no majority that can be
            reached, or another change is under way.
        :raises DeadlineExceeded: whether it was done is unknown.
        """
        conf = self._member.conf
        if self._member.is_leader and member not in conf.members():
            if self._member.registry.roster.is_former(member):
                return  # it was done already, and the answer was lost
            if self._member.registry.roster.member(member) is not None:
                # It joined by a token, and went away before it was a learner.
                command = c.RemoveProcess(self._wall_clock(), member, "member")
                await self._member.propose(command)
                return
            known = ", ".join(conf.members())
            raise NotFound(f"{member!r} is no member; there are: {known}")
        self._check_rest(member)
        await self._member.change_members(_step(ConfigAction.REMOVE, member))
        log.warn("{member} was removed from the group", member=member)

    def _check_rest(self, member: MemberId) -> None:
        """:raises Conflict: those that stay could not agree on anything."""
        status = self._member.status()
        rest = [voter for voter in self._member.conf.voters if voter != member]
        if status is None or not rest or len(rest) == len(self._member.conf.voters):
            return
        away = [
            voter
            for voter in rest
            if voter != status.member and status.progress.get(voter, (0, ""))[1] != "replicate"
        ]
        if 2 * (len(rest) - len(away)) <= len(rest):
            raise Conflict(
                f"without {member} there is no majority: {', '.join(away)} cannot be reached; "
                f"remove that one first, or bring it back"
            )

    # -- what the leader does ---------------------------------------------------------------------

    def _look(self) -> None:
        if self._busy or not self._member.is_leader:
            return
        work = self._due()
        if work is None:
            return
        self._busy = True
        done = Deferred.fromCoroutine(work())
        done.addErrback(_not_now)
        done.addBoth(self._free)

    def _free(self, _result: object) -> None:
        self._busy = False

    def _due(self) -> Work | None:
        """The next thing to be done, if there is any. What was refused waits until the others had
        their turn."""
        conf, known = self._member.conf, self.records()
        learners = [member for member in conf.learners if not conf.joint]
        for member in sorted(learners, key=lambda one: (self._tries.get(one, 0), one)):
            if self._caught_up(member):
                self._tries[member] = self._tries.get(member, 0) + 1
                change = _step(ConfigAction.PROMOTE, member)
                try:
                    self._member.check_change(change)
                except PBClusterError:
                    continue
                return partial(self._member.change_members, change)
        for member, record in sorted(self._settings.items()):
            if member in conf.members() and record != known.get(member):
                try:
                    self._member.registry.roster.check(record)
                except Conflict as error:
                    self._tell_once(record, error)
                    continue
                return partial(self._member.propose, c.SetMember(self._wall_clock(), record))
        return self._untold_process()

    def _untold_process(self) -> Work | None:
        """A process that the settings name and the registry does not, or with another key."""
        roster = self._member.registry.roster
        for process in self._processes:
            known = roster.process(process.id)
            same = known is not None and known.curve_public == process.curve_public
            if same or roster.is_former_process(process.id) or process in self._refused:
                continue
            return partial(self._tell_process, process)
        return None

    async def _tell_process(self, process: ProcessRecord) -> None:
        try:
            await self._member.propose(c.SetProcess(self._wall_clock(), process))
        except Conflict as error:
            self._tell_once(process, error)

    def _tell_once(self, record: MemberRecord | ProcessRecord, error: Conflict) -> None:
        if record not in self._refused:
            self._refused.append(record)
            log.error("the settings cannot be: {error}", error=error.message)

    def _caught_up(self, member: MemberId) -> bool:
        """Worth an attempt; the core checks by its own rule."""
        status = self._member.status()
        return status is not None and status.progress.get(member, (0, ""))[1] == "replicate"


def _not_now(failure: object) -> None:
    """Not caught up, another change under way, leadership ended: there is a next look."""
    error = getattr(failure, "value", None)
    if isinstance(error, PBClusterError):
        log.info("the group stays as it is: {error}", error=error.message)
    else:
        log.failure("looking after the group failed", failure)  # type: ignore[arg-type]

"""A simulated network: it loses, doubles, delays, reorders, and cuts links, one way if need be."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from pbcluster.controlplane.roster import Roster
from pbcluster.raft import MemberId
from pbcluster.raft.frames import Frame, decode, encode
from pbcluster.raft.messages import AnyMessage
from pbcluster.testing.raft_sim.process import Killed, SimProcess

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.world import World

#: One message in so many goes through the real encoder and decoder.
ENCODE_EVERY = 50
#: Election timeouts that a message may be under way.
LONGEST_DELAY_TIMEOUTS = 4


class SimNetwork:
    """All links of the group; ``cut`` holds directed pairs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cut: set[tuple[MemberId, MemberId]] = set()
        #: Chances in 1,000.
        self.loss = 0
        self.doubling = 0
        self.long_delay = 0
        #: What is sent to these takes longer and longer: since when, and how long at most.
        self.slow_to: dict[MemberId, tuple[int, int]] = {}
        self._sent = 0

    def calm(self) -> None:
        """No faults any more."""
        self.cut.clear()
        self.slow_to.clear()
        self.loss = self.doubling = self.long_delay = 0

    def send(self, message: AnyMessage) -> None:
        """Take a message; what becomes of it is chance."""
        world = self.world
        self._sent += 1
        if self._sent % ENCODE_EVERY == 0:
            message = decode(encode(Frame("sim", 1, message))).message
        world.note_message(message)
        world.checker.sending(message)
        random = world.network_random
        if (message.sender, message.to) in self.cut or random.random() * 1000 < self.loss:
            return
        delay = self._delay()
        if message.to in self.slow_to:
            begun, most = self.slow_to[message.to]
            delay += min((world.now - begun) // 2, most)
        world.after(delay, self._arrive, message)
        if self.doubling and random.random() * 1000 < self.doubling:
            world.after(self._delay() + self._delay(), self._arrive, message)

    def _delay(self) -> int:
        random = self.world.network_random
        if self.long_delay and random.random() * 1000 < self.long_delay:
            return random.randrange(1, LONGEST_DELAY_TIMEOUTS * self.world.profile.election_time)
        return 1 + int(random.random() * 4)

    def _arrive(self, message: AnyMessage) -> None:
        # A message that was under way when its link was cut still arrives, perhaps very late, and
        # perhaps at a later life than the one it was meant for.
        process = self.world.process(message.to)
        if process is not None:
            process.receive(message)

    def ask_standing(self, asker: MemberId, at: MemberId) -> None:
        """``asker`` wants to be told if it left."""
        if (asker, at) not in self.cut:
            self.world.after(self._delay(), lambda _: self._standing(asker, at), None)

    def _standing(self, asker: MemberId, at: MemberId) -> None:
        process = self.world.process(at)
        if process is not None and not process.paused and self.world.members[at].knows_left(asker):
            self.tell_gone(at, asker)

    def tell_gone(self, by: MemberId, to: MemberId) -> None:
        """``by`` answers ``to`` that it left the group."""
        if (by, to) not in self.cut:
            self.world.after(self._delay(), lambda _: self.world.members[to].told_gone(), None)

    def process_died(self, dead: MemberId) -> None:
        """The others' connections to it end, which they learn unless the link is cut too."""
        for member in self.world.members.values():
            if member.process is not None and (dead, member.id) not in self.cut:
                self.world.after(self._delay(), member.process.connection_lost, dead)


class SimLinks:
    """A ``RaftNetwork``: one member's end of it, for one life."""

    endpoint = "simulated"

    def __init__(self, process: SimProcess) -> None:
        self._process = process
        self._world = process.world
        self._roster = Roster()

    def start(
        self,
        incarnation: int,
        received: Callable[[AnyMessage], None],
        lost: Callable[[MemberId], None],
    ) -> None:
        """As ``RaftNetwork``."""

        def admitted(message: AnyMessage) -> None:
            if self.is_former(message.sender):
                self._world.network.tell_gone(self._process.member_id, message.sender)
            else:
                received(message)

        self._process.received, self._process.lost = admitted, lost

    def follow(self, members: Collection[MemberId], roster: Roster) -> None:
        """As ``RaftNetwork``; everybody knows where everybody is."""
        self._roster = roster

    def ask_standing(self) -> None:
        """As ``RaftNetwork``."""
        for member in list(self._world.members.values()):
            self._world.network.ask_standing(self._process.member_id, member.id)

    def is_former(self, member: MemberId) -> bool:
        """Whether this end knows that ``member`` left."""
        return self._roster.is_former(member)

    def send(self, message: AnyMessage) -> bool:
        """As ``RaftNetwork``: a member that is down is known not to be connected.

        :raises Killed: this was more than the process had time for.
        """
        process = self._process
        if process.last_words is not None:
            if process.last_words <= 0:
                raise Killed
            process.last_words -= 1
        if self._world.process(message.to) is None:
            return False
        self._world.network.send(message)
        return True

    def stop(self) -> None:
        """As ``RaftNetwork``."""
        self._process.received = self._process.lost = None

    def counts(self) -> dict[str, int]:
        """As ``RaftNetwork``."""
        return {}

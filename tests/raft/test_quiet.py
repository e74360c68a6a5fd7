"""How long a driver may sleep: through ticks in which nothing would have happened."""

import copy
import random
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import PBClusterError
from pbcluster.raft import ConfState, RaftCore, RaftOptions, Ready, Role, StoredState
from pbcluster.raft.messages import AnyMessage

IDS = ("a", "b", "c")
HEARTBEAT_TICKS, ELECTION_TICKS = 5, 25


def options(member: str) -> RaftOptions:
    return RaftOptions(
        member=member, heartbeat_ticks=HEARTBEAT_TICKS, election_ticks=ELECTION_TICKS
    )


class Chaos:
    """Three members whose messages are late, doubled or lost, and whose disks are slow."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        stored = StoredState(ConfState(IDS))
        self.cores = {one: RaftCore(options(one), stored, self.random) for one in IDS}
        self.messages: list[AnyMessage] = []
        self.writes: list[tuple[str, Ready]] = []

    def step(self) -> str:
        """Something happens to a member. :returns: to which."""
        who = self.random.choice(IDS)
        core = self.cores[who]
        what = self.random.randrange(100)
        try:
            if what < 45:
                core.tick()
            elif what < 80 and self.messages:
                message = self.messages.pop(self.random.randrange(len(self.messages)))
                if self.random.randrange(10):
                    who = message.to
                    self.cores[who].step(message)
            elif what < 90 and self.writes:
                who, ready = self.writes.pop(0)
                self.messages += ready.after
                self.cores[who].persisted(ready.token)
            elif what < 93:
                core.propose(b"command")
            elif what < 96:
                core.read_index()
            elif what < 97:
                core.transfer_leadership(self.random.choice(IDS))
            elif what < 98:
                core.connection_lost(self.random.choice(IDS))
        except PBClusterError:
            pass
        self.drain(who)
        return who

    def drain(self, who: str) -> None:
        core = self.cores[who]
        while core.has_ready():
            ready = core.ready()
            self.messages = (self.messages + list(ready.messages))[-100:]
            if ready.committed:
                core.applied(ready.committed[-1].index)
            self.writes.append((who, ready))


class QuietTests(SynchronousTestCase):
    def test_nothing_happens_meanwhile(self) -> None:
        """Whatever happened before: a member that ticks on, one tick short of what it promised,
        sends nothing, gives no read up, and plays the part it played."""
        naps: Counter[int] = Counter()
        roles: Counter[str] = Counter()
        for seed in range(20):
            world = Chaos(seed)
            for _ in range(400):
                core = world.cores[world.step()]
                quiet = core.quiet_ticks()
                naps[quiet] += 1
                roles[core.status().role.value] += quiet > 1
                asleep = copy.deepcopy(core)
                before = asleep.status()
                for _ in range(quiet - 1):
                    asleep.tick()
                    self.assertFalse(asleep.has_ready(), before)
                self.assertEqual(asleep.status(), before)
        self.assertEqual(set(naps), set(range(1, HEARTBEAT_TICKS + 1)), naps)
        self.assertGreaterEqual(set(roles), {"follower", "leader"}, roles)

    def test_a_leader_sleeps_from_heartbeat_to_heartbeat(self) -> None:
        """One that is a group of its own, too."""
        core = RaftCore(options("a"), StoredState(ConfState(("a",))), random.Random(1))
        core.campaign()
        while core.has_ready():
            ready = core.ready()
            core.persisted(ready.token)
            if ready.committed:
                core.applied(ready.committed[-1].index)
        self.assertEqual(core.quiet_ticks(), HEARTBEAT_TICKS)
        core.tick()
        self.assertEqual(core.quiet_ticks(), HEARTBEAT_TICKS - 1)

    def test_a_dead_leader_is_noticed_in_time(self) -> None:
        """A lost connection makes the next tick that matters come sooner."""
        world = Chaos(0)
        leader = ""
        while not leader:
            world.step()
            leader = world.cores["a"].status().leader
            if leader == "a":
                leader = ""
        core = world.cores["a"]
        core.connection_lost(leader)
        slept = 0
        while core.status().role is Role.FOLLOWER:
            ticks = core.quiet_ticks()
            for _ in range(ticks):
                self.assertIs(core.status().role, Role.FOLLOWER)
                core.tick()
            slept += ticks
        self.assertLess(slept, 2 * HEARTBEAT_TICKS)

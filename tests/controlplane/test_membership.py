"""Members join, are promoted, leave, and never come back under their ids."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from pbcluster.controlplane import beginning
from pbcluster.controlplane.admin_bodies import RULES, NewMember
from pbcluster.controlplane.admin_body import typed
from pbcluster.controlplane.admin_members import member_record
from pbcluster.controlplane.executor import utc_now
from pbcluster.controlplane.membership import Membership
from pbcluster.controlplane.raft_store import RaftStore
from pbcluster.errors import (
    CallerError,
    ConfigError,
    Conflict,
    InvalidInput,
    NotFound,
    NotLeader,
    PBClusterError,
)
from pbcluster.raft import ConfigAction, ConfigChange, ConfigStep
from pbcluster.raft.messages import Append
from pbcluster.records import MemberRecord
from pbcluster.saved_state import SavedState, pack
from tests.controlplane.raft_world import CLUSTER, MAP_BYTES, RaftWorld
from tests.controlplane.test_raft_member import WorldCase
from tests.controlplane.test_roster import member as numbered


def record(name: str, **more: str) -> MemberRecord:
    """Of member ``mN``."""
    return numbered(int(name[1:]), id=name, **more)


class GroupCase(WorldCase):
    """A world in which every member has its ``Membership``."""

    def setUp(self) -> None:
        self.groups: dict[str, Membership] = {}
        self.addCleanup(lambda: [group.stop() for group in self.groups.values()])

    def look_after(self, world: RaftWorld, *members: str) -> None:
        for name in members or world.ids:
            if name in self.groups:
                self.groups[name].stop()
            self.groups[name] = Membership(world.clock, world.members[name], utc_now)
            self.groups[name].start({name: record(name) for name in world.conf.voters})

    def group(self, count: int = 3, **more: Any) -> RaftWorld:
        world = self.world(count, **more)
        self.look_after(world)
        leader = world.members[world.leader()]
        world.until(lambda: len(list(leader.registry.roster.members())) == count)
        return world

    def add(self, world: RaftWorld, name: str, **more: str) -> None:
        group = self.groups[world.leader()]
        world.wait(Deferred.fromCoroutine(group.add_member(record(name, **more))))

    def remove(self, world: RaftWorld, name: str) -> None:
        group = self.groups[world.leader()]
        world.wait(Deferred.fromCoroutine(group.remove_member(name)))

    def voters(self, world: RaftWorld) -> tuple[str, ...]:
        return world.members[world.leader()].conf.voters


class Joining(GroupCase):
    def test_a_new_member_is_promoted(self) -> None:
        """It gets everything by a snapshot, votes once it has it, and the group survives then what
        it did not before."""
        world = self.group()
        world.create("before")
        world.join("m4")
        self.look_after(world, "m4")
        self.add(world, "m4")
        world.until(lambda: "m4" in self.voters(world))
        world.agree()
        self.assertEqual(world.names("m4"), {"before"})
        self.assertIn("m4", world.networks["m1"].followed)
        self.assertEqual(world.networks["m4"].followed, ("m1", "m2", "m3", "m4"))
        self.assertEqual(world.networks["m4"].roster.member("m2"), record("m2"))
        for gone in [name for name in ("m1", "m2", "m3") if name != world.leader()][:1]:
            world.kill(gone)
        world.create("after")
        world.agree()

    def test_who_never_starts_gets_no_vote(self) -> None:
        """A learner that is not there holds nobody up, however long it stays away."""
        world = self.group()
        self.add(world, "m4")
        world.run(5.0)
        self.assertEqual(self.voters(world), ("m1", "m2", "m3"))
        self.assertEqual(world.members[world.leader()].conf.learners, ("m4",))
        world.kill(world.followers()[0])
        world.create("a")

    def test_one_alone_becomes_three(self) -> None:
        """A cluster that began with one member grows; no leadership is lost on the way."""
        world = self.group(1)
        world.create("a")
        for name in ("m2", "m3"):
            world.join(name)
            self.look_after(world, name)
            self.add(world, name)
            world.until(lambda name=name: name in self.voters(world))  # type: ignore[misc]
        self.assertEqual(world.leader(), "m1")
        world.kill("m1")
        world.create("b")
        self.assertEqual(world.names(world.leader()), {"a", "b"})

    def test_asking_again_changes_nothing(self) -> None:
        """The same member again is fine, also after it votes; with other addresses it is not."""
        world = self.group()
        world.join("m4")
        self.look_after(world, "m4")
        self.add(world, "m4")
        self.add(world, "m4")
        world.until(lambda: "m4" in self.voters(world))
        self.add(world, "m4")
        self.assertEqual(self.voters(world), ("m1", "m2", "m3", "m4"))
        with self.assertRaisesRegex(Conflict, "a member already, with other addresses"):
            self.add(world, "m4", admin="http://127.0.0.1:1")
        with self.assertRaisesRegex(Conflict, "is m1's"):
            self.add(world, "m5", raft=record("m1").raft)

    def test_only_the_leader_adds(self) -> None:
        """Another member says who leads."""
        world = self.group()
        group = self.groups[world.followers()[0]]
        with self.assertRaises(NotLeader):
            world.wait(Deferred.fromCoroutine(group.add_member(record("m4"))))

    def test_a_joining_member_survives_its_restart(self) -> None:
        """Before it heard anything, and after it got everything: no marker is needed again."""
        world = self.group()
        world.join("m4")
        world.kill("m4")
        world.start("m4")
        self.look_after(world, "m4")
        self.add(world, "m4")
        world.until(lambda: "m4" in self.voters(world))
        world.kill("m4")
        world.create("meanwhile")
        world.start("m4")
        world.agree()

    def test_who_has_no_vote_is_not_told_of(self) -> None:
        """Nodes and gateways hear of those that vote, once all of them are known; a learner does
        not answer for what it may not know yet."""
        world = self.world(3)
        leader = world.members[world.leader()]
        self.assertEqual(leader.members(), ())
        self.look_after(world)
        world.until(lambda: len(leader.members()) == 3)
        world.join("m4")
        self.add(world, "m4")
        world.keep = lambda to, message: to != "m4"
        world.run(1.0)
        self.assertEqual([one.id for one in leader.members()], ["m1", "m2", "m3"])
        self.assertFalse(world.members["m4"].votes)
        index = leader.registry.roster.index
        world.keep = lambda to, message: True
        world.until(lambda: len(leader.members()) == 4)
        self.assertGreater(leader.registry.roster.index, index)
        world.until(lambda: world.members["m4"].votes)

    def test_all_others_were_replaced_meanwhile(self) -> None:
        """A member that was away comes back to a group of which it knows nobody: its settings, or
        what the leader sends it, tell it who they are."""
        world = self.group()
        away = world.followers()[0]
        world.kill(away)
        for number, old in enumerate([name for name in world.ids if name != away], 4):
            world.join(f"m{number}")
            self.look_after(world, f"m{number}")
            self.add(world, f"m{number}")
            world.until(lambda new=f"m{number}": new in self.voters(world))  # type: ignore[misc]
            self.remove(world, old)
            world.until(lambda old=old: old in world.failures)  # type: ignore[misc]
            del world.members[old]
        world.start(away)
        world.agree()
        self.assertEqual(world.networks[away].followed, tuple(sorted(("m4", "m5", away))))

    def test_a_change_under_way_leaves_no_record_behind(self) -> None:
        """Who cannot join now leaves nothing that would be in the way of the next."""
        world = self.group()
        leader = world.leader()
        gone = world.followers()[0]
        removal = Deferred.fromCoroutine(self.groups[leader].remove_member(gone))
        with self.assertRaisesRegex(Conflict, "may be under way"):
            self.add(world, "m5")
        world.wait(removal)
        self.assertIsNone(world.members[leader].registry.roster.member("m5"))
        self.add(world, "m6", raft=record("m5").raft)

    def test_one_that_does_not_come_holds_up_nobody(self) -> None:
        """A learner that went silent is tried again, but the others have their turn."""
        world = self.group()
        for name in ("m4", "m5"):
            world.join(name)
            self.look_after(world, name)
        world.keep = lambda to, message: message.sender != "m4"
        self.add(world, "m4")
        world.run(1.0)
        self.add(world, "m5")
        world.until(lambda: "m5" in self.voters(world))
        self.assertNotIn("m4", self.voters(world))


class Leaving(GroupCase):
    def test_a_removed_member_stops(self) -> None:
        """The others go on in the same term; it ends with a sentence and does not start again."""
        world = self.group()
        leader = world.leader()
        gone = world.followers()[0]
        term = world.members[leader].status().term  # type: ignore[union-attr]
        self.remove(world, gone)
        self.assertNotIn(gone, self.voters(world))
        world.until(lambda: gone in world.failures)
        self.assertIn("was removed from the control plane", world.failures[gone])
        world.create("a")
        world.run(2.0)
        self.assertEqual(world.members[leader].status().term, term)  # type: ignore[union-attr]

    def test_one_that_was_away_is_told(self) -> None:
        """Removed while it was dead: when it comes back it cannot disturb, is told, and ends; and
        the same when it is started once more."""
        world = self.group()
        gone = world.followers()[0]
        world.kill(gone)
        self.remove(world, gone)
        term = world.members[world.leader()].status().term  # type: ignore[union-attr]
        world.start(gone)
        world.until(lambda: gone in world.failures)
        self.assertIn("its id never comes back", world.failures[gone])
        self.assertEqual(world.members[world.leader()].status().term, term)  # type: ignore[union-attr]

    def test_a_learner_that_was_away_is_told(self) -> None:
        """It has no vote to ask for: it asks whether it left when it hears no leader."""
        world = self.group()
        world.join("m4")
        self.add(world, "m4")
        world.kill("m4")
        self.remove(world, "m4")
        world.start("m4")
        world.until(lambda: "m4" in world.failures)
        self.assertIn("its id never comes back", world.failures["m4"])

    def test_the_leader_removes_itself(self) -> None:
        """Its change is committed and answered before it ends; the two others elect one of them."""
        world = self.group()
        old = world.leader()
        self.remove(world, old)
        world.until(lambda: old in world.failures)
        del world.members[old]
        self.assertNotEqual(world.leader(), old)
        self.assertEqual(self.voters(world), tuple(sorted(world.members)))
        world.create("a")

    def test_an_id_never_comes_back(self) -> None:
        """Whoever lost its disk joins under a new id."""
        world = self.group()
        gone = world.followers()[0]
        world.kill(gone)
        self.remove(world, gone)
        with self.assertRaisesRegex(Conflict, "an id never comes back"):
            self.add(world, gone, curve_public="z" * 40)
        self.remove(world, gone)  # again: the first answer may have been lost
        with self.assertRaisesRegex(NotFound, "is no member; there are: m"):
            self.remove(world, "m9")
        world.join("m4")
        self.look_after(world, "m4")
        self.add(world, "m4")
        world.until(lambda: "m4" in self.voters(world))

    def test_the_last_voter_stays(self) -> None:
        """A group without anybody is none."""
        world = self.group(1)
        with self.assertRaisesRegex(Conflict, "no voter"):
            self.remove(world, "m1")

    def test_those_that_stay_must_be_a_majority(self) -> None:
        """With one of three dead, the other living one may not be removed; the dead one may."""
        world = self.group()
        dead, living = world.followers()
        world.kill(dead)
        world.run(1.0)
        with self.assertRaisesRegex(Conflict, f"no majority: {dead} cannot be reached"):
            self.remove(world, living)
        self.remove(world, dead)
        self.assertNotIn(dead, self.voters(world))

    def test_leavers_are_the_same_everywhere(self) -> None:
        """Changes and commands in one batch: every member's registry says the same at the same
        index, whether it applied them one by one, all at once, or from a snapshot."""
        world = self.group(5, snapshot_every=20, keep_entries=5)
        away, gone = world.followers()[:2]
        world.isolate(away)
        self.remove(world, gone)
        del world.members[gone]
        with self.assertRaises(Conflict):
            self.add(world, gone)
        for number in range(40):
            world.create(f"t{number}")
        world.heal()
        world.agree()
        roster = world.members[away].registry.roster
        self.assertEqual([one.id for one in roster.former()], [gone])

    def test_a_change_that_does_not_fit_changes_nothing(self) -> None:
        """It is refused where it is proposed; nobody is told to have left."""
        world = self.group()
        leader = world.members[world.leader()]
        steps = (
            ConfigStep(ConfigAction.REMOVE, world.followers()[0]),
            ConfigStep(ConfigAction.PROMOTE, "m9"),
        )
        with self.assertRaises(Conflict):
            world.wait(Deferred.fromCoroutine(leader.change_members(ConfigChange(steps))))
        self.assertEqual(list(leader.registry.roster.former()), [])

    def test_a_removal_without_a_majority_is_unknown(self) -> None:
        """The asker is told so, and the group is whole when the majority is back."""
        world = self.group()
        leader = world.leader()
        gone = world.followers()[0]
        world.keep = lambda to, message: not isinstance(message, Append)
        asked = Deferred.fromCoroutine(self.groups[leader].remove_member(gone))
        with self.assertRaises(PBClusterError):
            world.wait(asked, within_s=15.0)
        world.keep = lambda to, message: True
        world.leader()


class Moving(GroupCase):
    def test_settings_win(self) -> None:
        """A member that starts at another address is known by it soon."""
        world = self.group()
        leader = world.leader()
        moved = record(leader, admin="http://127.0.0.1:1")
        self.groups[leader].stop()
        self.groups[leader].start({leader: moved})
        registry = world.members[leader].registry
        world.until(lambda: registry.roster.member(leader) == moved)
        index = registry.applied_index
        world.run(2.0)
        self.assertEqual(registry.applied_index, index)

    def test_settings_that_contradict_the_registry_are_told_once(self) -> None:
        """They are not proposed again and again, and hold nothing up."""
        world = self.group()
        leader = world.leader()
        other = world.followers()[0]
        self.groups[leader].stop()
        self.groups[leader].start({leader: record(leader, raft=record(other).raft)})
        index = world.members[leader].registry.applied_index
        world.run(3.0)
        self.assertEqual(world.members[leader].registry.applied_index, index)
        world.join("m4")
        self.look_after(world, "m4")
        self.add(world, "m4")
        world.until(lambda: "m4" in self.voters(world))


class Recovering(GroupCase):
    def test_a_saved_state_begins_a_new_group(self) -> None:
        """All members lost their disks: the saved state, under a new cluster id, is where three
        others begin; the index goes on, so that no version is used twice."""
        old = self.group()
        old.create("kept")
        registry = old.members[old.leader()].registry
        saved = SavedState("cluster_0", registry.applied_index, "", registry.to_bytes())
        world = RaftWorld(old.directory / "new")
        self.addCleanup(world.close)
        for name in world.ids:
            home = world.directory / name
            (home / "first-start").write_text("recover\n")
            (home / "recovered-state").write_bytes(pack(saved))
        world.start()
        self.assertEqual(world.names(world.leader()), {"kept"})
        self.assertGreater(world.create("new").index, saved.index)
        world.agree()
        roster = world.members[world.leader()].registry.roster
        self.assertEqual(list(roster.members()), [])
        for name in world.ids:
            self.assertEqual([f.name for f in (world.directory / name).iterdir()], ["store"])

    def test_what_cannot_be_recovered(self) -> None:
        """Damaged, of this very cluster, missing, or no such file: each is one sentence."""
        world = RaftWorld(self.world().directory / "other")
        home = world.directory / "m1"
        (home / "first-start").write_text("recover\n")
        image = beginning.genesis("localhost")
        good = pack(SavedState("cluster_0", 1, "", image))
        cases = (
            (None, "cannot read"),
            (b"junk", "no snapshot"),
            (good[:-1] + b"?", "its checksum is wrong"),
            (pack(SavedState(CLUSTER, 1, "", image)), "of this very cluster"),
            (pack(SavedState("cluster_0", 1, "", b"?")), "cannot be read"),
            (pack(SavedState("cluster_0", 2, "", image)), "no registry of log index 2"),
            (pack(SavedState("cluster_0", 1, "", b"\x92\x01\x02")), "holds no registry"),
        )
        for data, told in cases:
            with self.subTest(told):
                if data is not None:
                    (home / "recovered-state").write_bytes(data)
                with self.assertRaisesRegex(ConfigError, told):
                    self.begin(world)
        (home / "first-start").write_text("again\n")
        with self.assertRaisesRegex(ConfigError, "allowed: found, join, recover"):
            self.begin(world)

    def begin(self, world: RaftWorld) -> None:
        store = RaftStore(
            world.directory / "m1" / "store",
            CLUSTER,
            "m1",
            map_bytes=MAP_BYTES,
            journal_bytes=65536,
        )
        try:
            beginning.prepare(store, world.directory / "m1", CLUSTER, ("m1",), "localhost")
        finally:
            store.close()


class NewMembers(WorldCase):
    def test_what_the_admin_api_takes(self) -> None:
        """The fields of a record; what is wrong is named with what is allowed."""
        whole = {
            "id": "member_4",
            "raft": "tcp://10.0.0.4:7000",
            "requests": "tcp://10.0.0.4:5555",
            "broadcasts": "tcp://10.0.0.4:5556",
            "admin": "http://10.0.0.4:8095",
            "curve_public": "k" * 40,
        }

        def new_member(body: bytes) -> MemberRecord:
            return member_record(typed(body, NewMember, RULES))

        self.assertEqual(new_member(json.dumps(whole).encode()), MemberRecord(**whole))
        wrong = {
            "id": "../x",
            "raft": "10.0.0.4:7000",
            "requests": 5,
            "broadcasts": "",
            "admin": "tcp://10.0.0.4:8095",
            "curve_public": "short",
            "more": "",
        }
        for name, value in wrong.items():
            with self.subTest(name):
                body = json.dumps(whole | {name: value}).encode()
                error = self.assertRaises(InvalidInput, new_member, body)
                self.assertEqual(error.data["field"], name)
        for body in (b"", b"[]", b"{"):
            self.assertRaises(CallerError, new_member, body)

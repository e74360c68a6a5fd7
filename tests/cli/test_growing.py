"""A member joins or leaves: what happens to the files of the directory, whatever is answered."""

from __future__ import annotations

import os
from typing import Any

from pbcluster import config
from pbcluster.cli import growing, initialise, procfs, state
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.initialise import Wish
from pbcluster.errors import ConfigError, Conflict, InvalidInput, NotFound, Unavailable
from tests.cli.support import DirectoryTestCase
from tests.cli.test_members import FakeMember, refusal


class GrowingTests(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        wish = Wish(nodes=1, gateway_port=0, admin_port=0)
        self.plan = initialise.initialise(self.where, wish)
        self.signals: list[int] = []
        self.patch(procfs, "send", lambda who, number: self.signals.append(number))

    def client(self, *answers: tuple[int, Any]) -> AdminClient:
        self.member = FakeMember(*answers)
        self.addCleanup(self.member.close)
        return AdminClient(self.member.url, "token")

    def running(self) -> None:
        me = procfs.identify(os.getpid())
        assert me is not None
        state.write_supervisor(self.where, me)

    def files(self) -> dict[str, bytes]:
        return {
            str(file.relative_to(self.where.root)): file.read_bytes()
            for file in self.where.root.rglob("*")
            if file.is_file()
        }

    def test_a_new_member_has_everything(self) -> None:
        """Settings, keys, a marker that says join, its place in the plan and in everybody's files;
        the control plane hears addresses and key, the supervisor hears of it last."""
        self.running()
        name = growing.next_id(self.where, self.plan)
        self.assertEqual(name, "member_4")
        client = self.client((202, {"id": name}))
        plan = growing.add(self.where, self.plan, client, name)
        self.assertEqual(self.where.load_plan(), plan)
        loaded = config.load(config.MemberConfig, self.where.config(name))
        self.assertEqual(len(loaded.raft_peers), 3)
        marker = self.where.data(name) / config.FIRST_START
        self.assertEqual(marker.read_text(), "join\n")
        node = config.load(config.NodeConfig, self.where.config("node_1"))
        self.assertIn(f"{loaded.request_endpoint}#{name}", node.members)
        (asked,) = self.member.asked
        self.assertEqual(asked[:2], ("POST", "/api/cp/members"))
        key = config.load_peers(self.where.peers_file)[name].curve_public
        self.assertIn(key.encode().split(b'"')[0][:10], asked[3])
        self.assertEqual(len(self.signals), 1)

    def test_a_refusal_leaves_nothing(self) -> None:
        """Every file is as it was."""
        self.running()
        before = self.files()
        refusal = (409, {"message": "no", "data": {}})
        nobody = (200, {"items": [], "totalItems": 0, "perPage": 200})
        client = self.client(refusal, nobody)
        with self.assertRaises(Conflict):
            growing.add(self.where, self.plan, client, "member_4")
        self.assertEqual(self.files(), before)
        self.assertEqual(self.signals, [])

    def test_a_refusal_of_what_was_done_is_none(self) -> None:
        """A repetition may meet its own first attempt: who is a member keeps everything, and so
        does one of whom nobody can say."""
        self.running()
        refusal = (409, {"message": "a change is under way", "data": {}})
        there = (200, {"items": [{"id": "member_4"}], "totalItems": 1, "perPage": 200})
        growing.add(self.where, self.plan, self.client(refusal, there), "member_4")
        plan = self.where.load_plan()
        self.assertIn("member_4", [p.id for p in plan.processes])
        self.assertEqual(len(self.signals), 1)
        with self.assertRaises(Conflict):
            growing.add(self.where, plan, self.client(refusal), "member_5")
        self.assertTrue(self.where.secrets("member_5").exists())

    def test_what_never_came_to_be_is_removed(self) -> None:
        """The control plane knows no such member; the plan forgets it too."""
        self.running()
        client = self.client((404, {"message": "is no member", "data": {}}))
        growing.remove(self.where, self.plan, client, "member_3")
        self.assertEqual(len(self.where.load_plan().of("member")), 2)
        with self.assertRaises(NotFound):
            growing.remove(self.where, self.where.load_plan(), client, "member_9")

    def test_an_unknown_outcome_keeps_the_files(self) -> None:
        """Perhaps it is a member now: it can be asked for again, with the same key and addresses,
        or removed like any other."""
        self.running()
        client = self.client(refusal("busy"), (202, {}))
        with self.assertRaises(Unavailable):
            growing.add(self.where, self.plan, client, "member_4")
        plan = self.where.load_plan()
        self.assertIn("member_4", [p.id for p in plan.processes])
        self.assertEqual(growing.add(self.where, plan, client, "member_4"), plan)
        self.assertEqual(self.member.asked[0][3], self.member.asked[1][3])

    def test_what_cannot_be(self) -> None:
        """A stopped cluster, a name that is taken."""
        client = self.client((202, {}))
        with self.assertRaisesRegex(ConfigError, "does not run"):
            growing.add(self.where, self.plan, client, "member_4")
        self.running()
        with self.assertRaisesRegex(InvalidInput, "there is a process 'member_1' already"):
            growing.add(self.where, self.plan, client, "member_1")
        self.assertEqual(self.member.asked, [])

    def test_the_files_of_a_former_member_are_not_taken_over(self) -> None:
        """Its name is refused before anybody is asked, and its files stay."""
        self.running()
        old = self.where.data("member_7")
        old.mkdir()
        (old / "store").mkdir()
        with self.assertRaisesRegex(InvalidInput, "holds the files of a former member_7"):
            growing.add(self.where, self.plan, self.client((202, {})), "member_7")
        self.assertEqual(self.member.asked, [])
        self.assertTrue((old / "store").is_dir())
        self.assertEqual(self.where.load_plan(), self.plan)

    def test_one_leaves(self) -> None:
        """Its data stays, its name is not given again, the others' files know it no more."""
        self.running()
        growing.remove(self.where, self.plan, self.client((200, {})), "member_3")
        plan = self.where.load_plan()
        self.assertEqual([m.id for m in plan.of("member")], ["member_1", "member_2"])
        self.assertTrue(self.where.data("member_3").is_dir())
        self.assertEqual(growing.next_id(self.where, plan), "member_4")
        loaded = config.load(config.MemberConfig, self.where.config("member_1"))
        self.assertEqual(len(loaded.raft_peers), 1)
        self.assertEqual(len(self.signals), 1)

    def test_a_refused_removal_changes_nothing(self) -> None:
        """The plan keeps it."""
        before = self.files()
        client = self.client((409, {"message": "the last voter", "data": {}}))
        with self.assertRaises(Conflict):
            growing.remove(self.where, self.plan, client, "member_3")
        self.assertEqual(self.files(), before)

    def test_waiting_for_the_vote(self) -> None:
        """What changes is shown once; the vote ends it."""
        rows = [
            {"id": "member_4", "voter": False, "behind": 7, "state": "snapshot"},
            {"id": "member_4", "voter": False, "behind": 7, "state": "snapshot"},
            {"id": "member_4", "voter": True, "behind": 0, "state": "replicate"},
        ]
        pages = [(200, {"items": [row], "totalItems": 1, "perPage": 200}) for row in rows]
        shown: list[str] = []
        growing.wait_votes(self.client(*pages), "member_4", shown.append)
        self.assertEqual(shown, ["member_4 lacks 7 entries (snapshot)"])

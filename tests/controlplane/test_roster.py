"""The control plane's members as part of the registry."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.commands import Keyed, SetMember
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.records import MemberRecord

AT = datetime(2026, 1, 1, tzinfo=UTC)


def member(number: int, **more: str) -> MemberRecord:
    """member_N, with addresses and a key that are its own."""
    fields = {
        "id": f"member_{number}",
        "raft": f"tcp://127.0.0.1:{7000 + number}",
        "requests": f"tcp://127.0.0.1:{7100 + number}",
        "broadcasts": f"tcp://127.0.0.1:{7200 + number}",
        "admin": f"http://127.0.0.1:{7300 + number}",
        "curve_public": str(number) * 40,
    }
    return MemberRecord(**fields | more)


class RosterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = Registry("example.com")

    def put(self, record: MemberRecord) -> Applied:
        return self.registry.apply(
            self.registry.applied_index + 1, Keyed("", SetMember(AT, record))
        )

    def test_a_record_is_told_once(self) -> None:
        """A new or moved member is broadcast; the same record again is not."""
        first = self.put(member(1)).broadcast
        assert first is not None
        self.assertEqual(first.topic, "members.changed")
        self.assertIsNone(self.put(member(1)).broadcast)
        moved = member(1, admin="http://127.0.0.1:9999")
        self.assertIsNotNone(self.put(moved).broadcast)
        self.assertEqual(list(self.registry.roster.members()), [moved])

    def test_an_id_that_left_never_comes_back(self) -> None:
        """Neither with the old key nor with a new one."""
        self.put(member(1))
        told = self.registry.members_changed(self.registry.applied_index + 1, ["member_1"])
        assert told.broadcast is not None
        self.assertEqual(told.broadcast.topic, "members.changed")
        self.assertEqual(list(self.registry.roster.members()), [])
        error = self.put(member(2, curve_public=member(1).curve_public)).outcome.error
        assert error is not None
        self.assertEqual(error.data["field"], "curve_public")
        for record in (member(1), member(1, curve_public="z" * 40)):
            error = self.put(record).outcome.error
            assert error is not None
            self.assertEqual(error.code, "conflict")
            self.assertIn("never comes back", error.message)

    def test_no_two_share_a_key_or_an_address(self) -> None:
        """The one that has it is named; what two may both leave empty is no clash."""
        self.put(member(1, curve_public=""))
        self.assertIsNone(self.put(member(2, curve_public="")).outcome.error)
        error = self.put(member(3, raft=member(1).raft)).outcome.error
        assert error is not None
        self.assertIn("member_1", error.message)
        self.assertEqual(error.data["field"], "raft")

    def test_a_snapshot_holds_it(self) -> None:
        """Members and those that left, in their order."""
        for number in (2, 1, 3):
            self.put(member(number))
        self.registry.members_changed(self.registry.applied_index + 1, ["member_1"])
        copy = Registry.from_bytes("example.com", self.registry.to_bytes())
        self.assertEqual(list(copy.roster.members()), [member(2), member(3)])
        self.assertTrue(copy.roster.is_former("member_1"))
        self.assertFalse(copy.roster.is_former("member_2"))
        self.assertEqual(copy.to_bytes(), self.registry.to_bytes())

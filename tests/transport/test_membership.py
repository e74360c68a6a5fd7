"""What answers about members mean, without asking anybody."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import ConfigError
from pbcluster.records import MemberRecord
from pbcluster.transport.membership import MAX_HASTY, MAX_MEMBERS, Membership, read_record
from pbcluster.wire import Members


def record(number: int, **more: str) -> MemberRecord:
    fields = {
        "id": f"member_{number}",
        "raft": f"tcp://127.0.0.1:{7000 + number}",
        "requests": f"tcp://127.0.0.1:{7100 + number}",
        "broadcasts": f"tcp://127.0.0.1:{7200 + number}",
        "admin": f"http://127.0.0.1:{7300 + number}",
    }
    return MemberRecord(**fields | more)


class News(SynchronousTestCase):
    def setUp(self) -> None:
        self.membership = Membership(["member_1", ""])

    def use(self, index: int, *numbers: int, all_of_them: bool = True) -> None:
        records = self.membership.news(Members(index, tuple(record(n) for n in numbers)))
        self.assertEqual([one.id for one in records], [f"member_{n}" for n in numbers])
        self.membership.used(records, all_of_them=all_of_them)

    def test_nothing_is_known_yet(self) -> None:
        """No members: the settings stay in use, whatever the index is."""
        self.assertEqual(self.membership.news(Members(9, ())), ())
        self.use(3, 1, 2)
        self.assertEqual(self.membership.news(Members(10, ())), ())

    def test_older_answers(self) -> None:
        """An answer below the newest index is ignored, also when that one brought no change."""
        self.use(5, 1, 2)
        self.assertEqual(self.membership.news(Members(8, (record(1), record(2)))), ())
        self.assertEqual(self.membership.news(Members(7, (record(1),))), ())
        self.use(8, 1, 3)

    def test_the_same_again(self) -> None:
        """Nothing is to do, unless not all could be used before."""
        self.use(5, 1, 2, all_of_them=False)
        self.use(6, 1, 2)
        self.assertEqual(self.membership.news(Members(7, (record(1), record(2)))), ())

    def test_gone(self) -> None:
        """Who was a member, by the settings or an answer, and is none any more."""
        self.assertEqual(self.membership.gone([record(2), record(3)]), ["member_1"])
        self.use(5, 2, 3)
        self.assertEqual(self.membership.gone([record(4)]), ["member_2", "member_3"])

    def test_too_many(self) -> None:
        """An answer beyond all measure is not believed."""
        many = tuple(record(n) for n in range(MAX_MEMBERS + 1))
        self.assertRaises(ConfigError, self.membership.news, Members(1, many))
        self.use(1, 1)

    def test_behind(self) -> None:
        """After a broadcast it is asked again until its index is there, but not for ever."""
        self.assertFalse(self.membership.is_behind())
        self.membership.changed(7)
        self.use(6, 1)
        self.assertTrue(self.membership.is_behind())
        self.use(7, 1, 2)
        self.assertFalse(self.membership.is_behind())
        self.membership.changed(7)
        self.assertFalse(self.membership.is_behind())
        self.membership.changed(9)
        for _ in range(MAX_HASTY):
            self.assertTrue(self.membership.is_behind())
            self.membership.asked()
        self.assertFalse(self.membership.is_behind())
        self.membership.changed(10)
        self.assertTrue(self.membership.is_behind())


class Records(SynchronousTestCase):
    def test_usable(self) -> None:
        """A record names endpoints of the member and its key."""
        found = read_record(record(1, curve_public="k"))
        self.assertEqual(
            (found.peer.id, found.peer.role, found.peer.curve_public)[1:], ("member", "k")
        )
        self.assertEqual(found.requests.endpoint, "tcp://127.0.0.1:7101")
        self.assertEqual(found.broadcasts.endpoint, "tcp://127.0.0.1:7201")
        self.assertEqual(found.requests.member_id, "member_1")

    def test_unusable(self) -> None:
        """Wildcards, ports that are none and ids that are none are refused with a sentence."""
        for field, value in (
            ("requests", "tcp://0.0.0.0:7101"),
            ("requests", "memory://member_1"),
            ("broadcasts", "tcp://127.0.0.1:0"),
            ("id", "Member 1"),
        ):
            error = self.assertRaises(ConfigError, read_record, record(1, **{field: value}))
            self.assertIn(value, str(error))

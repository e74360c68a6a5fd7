"""How a process follows the members, with a scripted control plane and no socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.config import Peer
from pbcluster.errors import ConfigError, DeadlineExceeded
from pbcluster.records import MemberRecord
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.following import (
    FIRST_S,
    INTERVAL_S,
    JITTER,
    LOG_INTERVAL_S,
    SHORTEST_S,
    STRANGER_S,
    MemberFollower,
)
from pbcluster.transport.interfaces import Handler
from pbcluster.transport.membership import MAX_HASTY
from tests.transport.test_membership import record

FIRST = [MemberAddress("tcp://127.0.0.1:7101", "member_1")]


class FakeKeys:
    """``Sockets``, as far as keys go. :ivar refused: ids whose key cannot be used."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.refused: set[str] = set()

    def allow(self, peer: Peer) -> None:
        if peer.id in self.refused:
            raise ConfigError(f"the key of {peer.id} is none")
        self.told.append(f"allow {peer.id}")

    def revoke(self, process_id: str) -> None:
        self.told.append(f"revoke {process_id}")

    def key_of(self, address: MemberAddress) -> str:
        if not address.endpoint.startswith("tcp://127."):
            raise ConfigError(f"{address.endpoint} is not a loopback address")
        return ""


class FakeSessions:
    """Notes who is to be talked to. :ivar error: raised instead."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told
        self.error: Exception | None = None

    def set_members(self, members: Sequence[MemberAddress]) -> None:
        if self.error is not None:
            raise self.error
        self.told.append(f"{self.name} {' '.join(member.endpoint[-4:] for member in members)}")


class FakeClient(FakeSessions):
    """Answers with ``answer`` (an error is raised, a Deferred waited for)."""

    def __init__(self, told: list[str]) -> None:
        super().__init__("requests", told)
        self.answer: Any = wire.Members(1, ())
        self.asked: list[dict[str, Any]] = []
        self.leader_unknown: Callable[[], None] = lambda: None

    def when_leader_unknown(self, callback: Callable[[], None]) -> None:
        self.leader_unknown = callback

    def start(self, handler: Handler) -> None:
        raise AssertionError("not the follower's")

    def stop(self) -> None:
        raise AssertionError("not the follower's")

    async def ask(self, body: wire.Body, **how: Any) -> wire.Body:
        assert isinstance(body, wire.ListMembers)
        self.asked.append(how)
        if isinstance(self.answer, Exception):
            raise self.answer
        found = await self.answer if isinstance(self.answer, Deferred) else self.answer
        assert not isinstance(found, Exception)
        answer: wire.Body = found
        return answer


class FollowerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[str] = []
        self.keys = FakeKeys(self.told)
        self.client = FakeClient(self.told)
        self.broadcasts = FakeSessions("broadcasts", self.told)
        self.warnings: list[str] = []
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)
        self.follower = self.start(self.broadcasts)

    def start(self, subscriber: FakeSessions | None) -> MemberFollower:
        follower = MemberFollower(
            self.clock, self.keys, self.client, Random(1), first=FIRST, subscriber=subscriber
        )
        follower.start()
        self.addCleanup(self.stopped, follower)
        return follower

    def stopped(self, follower: MemberFollower) -> None:
        """After its end nothing is left to happen."""
        follower.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def logged(self, event: dict[str, Any]) -> None:
        if event.get("log_level") is not None and event["log_level"].name == "warn":
            self.warnings.append(event.get("line", ""))

    def know(self, index: int, *records: MemberRecord) -> None:
        self.client.answer = wire.Members(index, records)

    def wait(self, seconds: float) -> list[str]:
        """What was done meanwhile."""
        before = len(self.told)
        self.clock.pump([0.05] * round(seconds / 0.05))
        return self.told[before:]

    def round(self) -> list[str]:
        """Long enough for one regular question, at least."""
        return self.wait(INTERVAL_S * (1 + JITTER) + SHORTEST_S)

    def test_asks_regularly(self) -> None:
        """Soon after the start, then in jittered intervals; of any member, with a deadline."""
        self.wait(FIRST_S * (1 + JITTER) + 0.05)
        self.assertEqual(len(self.client.asked), 1)
        self.wait(60.0)
        self.assertIn(len(self.client.asked), (6, 7, 8))
        for how in self.client.asked:
            self.assertTrue(how["any_member"])
            self.assertGreater(how["timeout_s"], 0)
        self.assertEqual(self.told, [])

    def test_a_leader_whom_we_do_not_know(self) -> None:
        """It may have joined a moment ago: who the members are is asked at once, but not more often
        than once a second, whatever is said."""
        self.wait(FIRST_S * (1 + JITTER) + SHORTEST_S + 0.1)
        asked = len(self.client.asked)
        self.know(5, record(1), record(2))
        self.client.leader_unknown()
        self.assertEqual(self.told[:1], ["requests 7101 7102"])
        for _ in range(round(STRANGER_S / 0.05) - 1):
            self.client.leader_unknown()
            self.wait(0.05)
        self.assertEqual(len(self.client.asked), asked + 1)
        self.wait(0.1)
        self.client.leader_unknown()
        self.assertEqual(len(self.client.asked), asked + 2)

    def test_who_the_gateways_are_is_told(self) -> None:
        """With each answer that is no older than the newest, and that knows anything."""
        heard: list[wire.Members] = []
        self.stopped(self.follower)
        self.follower = MemberFollower(
            self.clock, self.keys, self.client, Random(1), first=FIRST, heard=heard.append
        )
        self.follower.start()
        self.addCleanup(self.stopped, self.follower)
        for index, records in ((5, (record(2),)), (4, (record(2),)), (6, ()), (6, (record(2),))):
            self.client.answer = wire.Members(index, records, (f"gateway_{index}",))
            self.round()
        self.assertEqual([told.gateways for told in heard][:1], [("gateway_5",)])
        self.assertEqual({told.index for told in heard}, {5, 6})

    def test_an_answer_is_applied(self) -> None:
        """Keys before sessions, sessions before the revocation; the same again does nothing."""
        self.know(5, record(2, curve_public="k"), record(3))
        expected = ["allow member_2", "requests 7102 7103", "broadcasts 7202 7203"]
        self.assertEqual(self.round(), [*expected, "revoke member_1"])
        self.know(6, record(2, curve_public="k"), record(3))
        self.assertEqual(self.round(), [])
        self.know(7, record(3))
        self.assertEqual(self.round(), ["requests 7103", "broadcasts 7203", "revoke member_2"])

    def test_unknown_members_and_old_answers(self) -> None:
        """Neither changes anything."""
        self.know(5, record(1), record(2))
        self.round()
        self.know(9)
        self.assertEqual(self.round(), [])
        self.know(4, record(1))
        self.assertEqual(self.round(), [])
        self.assertEqual(self.warnings, [])

    def test_without_a_subscriber(self) -> None:
        """A node has none; whether broadcasts could be heard from here does not matter."""
        self.follower.stop()
        self.start(None)
        self.know(5, record(1), record(2, broadcasts="tcp://192.0.2.1:7202"))
        self.assertEqual(self.round(), ["requests 7101 7102"])

    def test_records_that_cannot_be_used(self) -> None:
        """Are left out and told; they are tried again, and their members are not revoked."""
        self.keys.refused.add("member_1")
        bad = (record(1, curve_public="k"), record(2, requests="tcp://*:1"))
        self.know(5, *bad, record(3), record(4, broadcasts="tcp://192.0.2.1:7204"))
        self.assertEqual(self.round()[:2], ["requests 7103", "broadcasts 7203"])
        (line,) = self.warnings
        for word in ("member_1", "member_2", "member_4", "tcp://*:1", "loopback"):
            self.assertIn(word, line)
        self.keys.refused.clear()
        self.assertIn("requests 7101 7103", self.round())
        self.assertNotIn("revoke member_1", self.told)

    def test_no_record_can_be_used(self) -> None:
        """Then all stays as it is."""
        self.know(5, record(1, requests=""), record(2, requests="tcp://*:1"))
        self.assertEqual(self.round(), [])
        self.assertEqual(len(self.warnings), 1)

    def test_failures_are_told_once_a_minute(self) -> None:
        """No answer, a wrong one, and sessions that fail: asked again, told now and then."""
        self.client.answer = DeadlineExceeded("nobody there")
        self.wait(LOG_INTERVAL_S - 2.0)
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("nobody there", self.warnings[0])
        self.client.answer = wire.Ok()
        self.wait(LOG_INTERVAL_S)
        self.assertEqual(len(self.warnings), 2)
        self.know(5, record(2))
        self.broadcasts.error = OSError("too many open files")
        self.wait(LOG_INTERVAL_S)
        self.assertIn("too many open files", self.warnings[2])
        self.broadcasts.error = None
        self.assertEqual(self.round(), ["requests 7102", "broadcasts 7202", "revoke member_1"])

    def test_broadcast(self) -> None:
        """Members changed: it is asked at once, and again soon while the answer is older."""
        self.round()
        asked = len(self.client.asked)
        self.know(5, record(1))
        self.follower.changed(6)
        self.clock.advance(0)
        self.assertEqual(len(self.client.asked), asked + 1)
        self.know(6, record(1), record(2))
        self.assertIn("requests 7101 7102", self.wait(SHORTEST_S))
        asked = len(self.client.asked)
        self.follower.changed(6)
        self.wait(2.0)
        self.assertEqual(len(self.client.asked), asked)

    def test_broadcast_before_the_first_question(self) -> None:
        """Nor is that waited for."""
        self.follower.changed(1)
        self.assertEqual(len(self.client.asked), 1)

    def test_broadcast_during_a_question(self) -> None:
        """The question goes on; another one follows when it is over."""
        waiting: Deferred[wire.Body] = Deferred()
        self.client.answer = waiting
        self.round()
        self.follower.changed(7)
        self.assertEqual(len(self.client.asked), 1)
        self.know(7, record(1), record(2))
        waiting.callback(wire.Members(6, (record(1),)))
        self.assertIn("requests 7101 7102", self.wait(SHORTEST_S + 0.1))

    def test_haste_is_bounded(self) -> None:
        """A flood of broadcasts, or an index that never comes, makes no flood of questions."""
        self.know(5, record(1))
        self.round()
        asked = len(self.client.asked)
        for index in range(6, 1006):
            self.follower.changed(index)
        self.client.answer = DeadlineExceeded("nobody there")
        self.wait(8.0)
        self.assertLessEqual(len(self.client.asked) - asked, MAX_HASTY + 2)
        self.assertGreaterEqual(len(self.client.asked) - asked, MAX_HASTY)

    def test_stop_during_a_question(self) -> None:
        """It is given up, and nothing follows."""
        cancelled: list[Any] = []
        self.client.answer = Deferred(cancelled.append)
        self.round()
        self.follower.stop()
        self.assertEqual(len(cancelled), 1)
        self.follower.changed(9)
        self.round()
        self.assertEqual(len(self.client.asked), 1)
        self.assertEqual(self.warnings, [])

"""Bundles between the two sides of a session: in memory, and over CURVE."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from pbcluster import wire
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.gathering import GATHERED
from pbcluster.transport.interfaces import Asked
from pbcluster.transport.member_choice import ATTEMPT_TIMEOUT_S
from pbcluster.wire import Body, Ok
from tests.transport import test_memory, test_zmq
from tests.transport.bodies import envelope
from tests.transport.test_memory import ACK, LEASE, Recorder
from tests.transport.test_zmq import echo

AT_ONCE = 64


class InMemory(test_memory.Case):
    def setUp(self) -> None:
        super().setUp()
        self.answers: list[Deferred[Body]] = []
        self.recorder = Recorder(self.wait_for_answer)
        (self.server,) = self.members(self.recorder)
        self.asking = self.client()

    def wait_for_answer(self, asked: Asked, body: Body) -> Deferred[Body]:
        self.answers.append(Deferred())
        return self.answers[-1]

    def answer_all(self) -> None:
        answers, self.answers = self.answers, []
        for answer in answers:
            answer.callback(ACK)
        self.network.settle()

    async def twice(self) -> None:
        for _ in range(2):
            await self.asking.ask(LEASE, timeout_s=5.0)

    def start(self, count: int = AT_ONCE) -> list[Deferred[None]]:
        loops = [Deferred.fromCoroutine(self.twice()) for _ in range(count)]
        self.network.settle()
        return loops

    def test_answers_and_the_questions_after_them_leave_together(self) -> None:
        """Of 64 closed loops: single questions first, then few frames either way, and each is
        answered."""
        loops = self.start()
        self.assertEqual(self.network.counts["sent"], 1 + AT_ONCE)  # a greeting
        for frames in (2 * (2 + AT_ONCE // GATHERED), 2 + AT_ONCE // GATHERED):
            before = self.network.counts["sent"]
            self.assertEqual(len(self.answers), AT_ONCE)
            self.answer_all()
            self.assertLessEqual(self.network.counts["sent"] - before, frames)
        for loop in loops:
            self.successResultOf(loop)
        self.assertGreater(self.asking.counts()["bundles"], 0)
        self.assertGreater(self.server.side._gathering.counts["bundles"], 0)
        self.assertEqual(set(self.server.counts()), {"late"})  # nothing was dropped

    def test_questions_of_one_turn_leave_together(self) -> None:
        """As of a gateway whose tenants all moved; the first does not wait for the others."""
        self.ask(self.asking)
        self.answer_all()  # the member said that it reads bundles
        before = self.network.counts["sent"]
        loops = [Deferred.fromCoroutine(self.twice()) for _ in range(AT_ONCE)]
        self.assertEqual(self.network.counts["sent"] - before, 1 + (AT_ONCE - 1) // GATHERED)
        self.network.settle()
        self.assertEqual(self.network.counts["sent"] - before, 2 + (AT_ONCE - 1) // GATHERED)
        self.assertEqual(len(self.answers), AT_ONCE)
        for _ in range(2):
            self.answer_all()
        for loop in loops:
            self.successResultOf(loop)

    def test_a_lost_bundle_is_only_late(self) -> None:
        """Of answers or of questions: all that was in it is asked again after the attempt's time,
        and no sooner."""
        for sender, receiver in (("member_1", "node_a"), ("node_a", "member_1")):
            with self.subTest(lost=sender):
                loops = self.start()
                self.network.cut(sender, receiver, both_ways=False)
                self.answer_all()
                self.network.heal()
                asked = len(self.recorder.asked)
                self.wait(ATTEMPT_TIMEOUT_S - 0.05)
                self.assertEqual(len(self.recorder.asked), asked)
                self.wait(0.2)
                self.assertEqual(len(self.recorder.asked), asked + AT_ONCE)
                for _ in range(2):
                    self.answer_all()
                for loop in loops:
                    self.successResultOf(loop)

    def test_a_member_that_goes_while_questions_wait(self) -> None:
        """Removed in the middle of a bundle of answers: what was to be asked there goes elsewhere
        at once, and the rest of the bundle is not taken from it."""
        other = Recorder(self.wait_for_answer)
        server = self.network.server("member_2")
        loops = self.start()
        self.assertEqual(len(self.recorder.asked), AT_ONCE)
        server.start(other)
        side = self.asking._side
        middle = Deferred.fromCoroutine(self.asking.ask(LEASE, timeout_s=5.0))
        middle.addCallback(lambda _: self.asking.set_members([MemberAddress("", "member_2")]))
        self.network.settle()
        self.answers.insert(AT_ONCE // 4, self.answers.pop())
        self.answer_all()
        self.successResultOf(middle)
        self.assertNotIn(0, side._gathering._readers)
        for _ in range(3):
            self.answer_all()
        for loop in loops:
            self.successResultOf(loop)
        self.assertGreaterEqual(len(other.asked), AT_ONCE)
        self.assertEqual(self.asking.counts()["in_flight"], 0)

    def test_a_lost_session_reads_nothing(self) -> None:
        """Who comes back there has to say again that it reads bundles; what was still to be read of
        the old session says nothing of it."""
        loops, gathering = self.start(2), self.asking._side._gathering
        self.answer_all()
        self.assertIn(0, gathering._readers)
        self.server.stop()
        self.assertNotIn(0, gathering._readers)
        late = wire.encode(envelope("member_1", 0, cluster_id="memory", body=Ok(), bundles=True))
        self.asking._side.frame(0, (late,), "member_1")
        self.assertNotIn(0, gathering._readers)
        self.server.start(self.recorder)
        for _ in range(3):
            self.wait(1.2)
            self.answer_all()
        self.assertIn(0, gathering._readers)
        for loop in loops:
            self.successResultOf(loop)

    def test_a_stop_in_the_middle_of_a_bundle(self) -> None:
        """The rest is not taken: a server that was stopped learns no session."""
        frames = [wire.encode(envelope("node_b", n, cluster_id="memory")) for n in (1, 3, 5)]
        side = self.server.side
        self.recorder.then = lambda asked, body: self.server.stop() or ACK
        self.assertEqual(side.frame(b"node_b.t", (wire.bundle(frames),), "node_b", "node"), 3)
        self.assertEqual(len(self.recorder.asked), 1)
        self.assertFalse(side.peers())

    def test_doubled_bundles_answer_once(self) -> None:
        """The second answer to a question finds nobody and is counted."""
        loops = self.start()
        self.network.faults.duplicate = 1.0
        self.answer_all()
        self.network.heal()
        self.answer_all()
        for loop in loops:
            self.successResultOf(loop)
        self.assertGreaterEqual(self.asking.counts()["late"], AT_ONCE)

    def test_questions_of_a_bundle_that_cannot_leave_go_elsewhere_at_once(self) -> None:
        """No one waits for an attempt's time when the session is gone or full by then."""
        other = Recorder(self.wait_for_answer)
        self.network.server("member_2").start(other)
        self.asking = self.network.client("node_b")
        self.asking.start(Recorder(lambda asked, body: Ok()))
        loops = self.start()
        asked = 0 if self.recorder.asked else 1
        self.assertEqual(len(self.answers), AT_ONCE)
        gathering, send = self.asking._side._gathering, self.asking._send
        gathering._send = lambda member, frame: member != asked and send(member, frame)
        self.answer_all()
        self.assertEqual(len(self.recorder.asked) + len(other.asked), 2 * AT_ONCE)
        self.answer_all()
        for loop in loops:
            self.successResultOf(loop)
        self.assertEqual(len(self.recorder.asked), len(other.asked))

    def test_one_of_an_older_version_gets_single_frames(self) -> None:
        """It never says that it reads bundles."""
        frames: list[bytes] = []
        self.server.side._gathering._send = lambda _, frame: frames.append(frame) or True
        for number in range(1, 2 * AT_ONCE, 2):
            asked = wire.encode(envelope("node_old", number, cluster_id="memory"))
            self.server.side.frame(b"node_old.token", (asked,), "node_old", "node")
        self.answer_all()
        self.assertEqual(
            [wire.decode(frame).request_id for frame in frames], list(range(1, 2 * AT_ONCE, 2))
        )

    def test_a_member_of_an_older_version_is_asked_in_single_frames(self) -> None:
        """Even if it came back as one behind the same session."""
        loops = self.start()
        self.answer_all()
        side = self.asking._side
        frames: list[bytes] = []
        side._gathering._send = lambda _, frame: frames.append(frame) or True
        last = wire.encode(envelope("member_1", 0, cluster_id="memory", body=Ok()))
        side.frame(0, (last,), "member_1")
        side._gathering.hold()
        for _ in range(3):
            self.ask(self.asking)
        side._gathering.release()
        self.assertEqual([len(frame) > 4 and frame[:4] for frame in frames], [wire.MAGIC] * 3)
        self.assertEqual(len(loops), AT_ONCE)

    def test_one_failing_message_leaves_the_others(self) -> None:
        """What breaks while one of a bundle is handled does not lose those behind it."""
        side, broken = self.server.side, [True]
        question = side._answering.question

        def once_broken(*told: object) -> None:
            if broken:
                broken.clear()
                raise ZeroDivisionError
            question(*told)

        side._answering.question = once_broken  # type: ignore[method-assign]
        frames = [
            wire.encode(envelope("node_a", number, cluster_id="memory")) for number in (1, 3, 5)
        ]
        self.assertEqual(side.frame(b"node_a.t", (wire.bundle(frames),), "node_a", "node"), 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.answers), 2)

    def test_a_bundle_of_another_session_is_junk(self) -> None:
        """Each message is held against the session's name."""
        frames = [wire.encode(envelope("node_b", n, cluster_id="memory")) for n in (1, 3)]
        frames.append(wire.encode(envelope("node_a", 5, cluster_id="memory")))
        self.server.side.frame(b"node_a.t", (wire.bundle(frames),), None, "node")
        self.assertEqual(len(self.answers), 1)
        self.assertEqual(self.server.counts()["junk_sender"], 2)


class OverCurve(test_zmq.Case):
    async def test_closed_loops(self) -> None:
        """64 loops over real sockets under CURVE: every answer is the right one, most came in
        bundles, and so did the questions."""

        async def slow_echo(asked: Asked, body: Body) -> Body:
            # Several are answered in one turn, as by a commit.
            await deferLater(reactor, 0.005)
            return echo(asked, body)

        server = self.server(
            self.sockets("member_1", self.curve("member_1", "node_a")),
            Recorder(lambda asked, body: Deferred.fromCoroutine(slow_echo(asked, body))),
        )
        client = self.client(
            self.sockets("node_a", self.curve("node_a", "member_1")), {"member_1": server.endpoint}
        )

        async def loop(number: int) -> None:
            for index in range(number, 100 * AT_ONCE, 10 * AT_ONCE):
                answer = await client.ask(wire.Lease("node_a", 1, index), timeout_s=20.0)
                self.assertEqual(answer, wire.LeaseAck(True, index))

        await gatherResults([Deferred.fromCoroutine(loop(number)) for number in range(AT_ONCE)])
        for counts in (client.counts(), server._side._gathering.counts):
            self.assertGreater(counts["bundles"], 0)
            self.assertGreater(counts["bundled"], 2 * counts["bundles"])
        self.assertEqual(client.counts()["attempts"], 10 * AT_ONCE)

    async def test_a_bundle_counts_as_its_messages(self) -> None:
        """So that a turn of the reactor stays as short as without bundles; those that are bad
        count, too."""
        server = self.server(self.sockets("member_1"), Recorder())
        frames = [wire.encode(envelope("node_a", number)) for number in range(1, 2 * AT_ONCE, 2)]
        foreign = wire.encode(envelope("node_b", 1))
        bundles = [
            wire.bundle(frames),
            wire.bundle([wire.MAGIC + b"\xc0"] * AT_ONCE),
            wire.bundle([foreign] * AT_ONCE),
        ]
        connection = server._connection
        assert connection is not None
        taken: list[int | None] = []
        received = connection._received

        def noted(parts: list[bytes], user_id: str) -> int | None:
            taken.append(received(parts, user_id))
            turns[-1] += 1
            return taken[-1]

        do_read, turns = connection.doRead, [0]

        def turn() -> None:
            turns.append(0)
            do_read()

        connection._received = noted
        connection.doRead = turn  # type: ignore[method-assign]
        raw = self.raw_dealer(server.endpoint)
        for each in 2 * bundles:
            raw.send([each])
        await self.until(lambda: len(taken) == 6)
        self.assertEqual(taken, [AT_ONCE] * 6)
        self.assertEqual(max(turns), 1)
